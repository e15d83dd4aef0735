"""The demo: a real model through the whole path, measured against its rivals, with a report page."""

from __future__ import annotations

from .flow import DemoSettings, run_demo
from .page import render

__all__ = ["DemoSettings", "render", "run_demo"]
