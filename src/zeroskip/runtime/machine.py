"""Where a plan was measured."""

from __future__ import annotations

from typing import Any

from .packing import native

_KEYS = ("arch", "model_name", "selected", "threads", "cores", "l1d_bytes", "l2_bytes", "l3_bytes")


def fingerprint() -> dict[str, Any]:
    """Processor, instruction set, threads and caches, JSON-able."""
    info = native().cpu_info()
    return {key: info[key] for key in _KEYS if key in info}


def differs(saved: dict[str, Any]) -> str | None:
    """How this machine differs from the one that a plan was measured on, where it matters; None if it does not."""
    here = fingerprint()
    changed = [key for key in ("arch", "model_name", "selected", "threads") if saved.get(key) != here.get(key)]
    if not changed:
        return None
    was = ", ".join(f"{key} {str(saved.get(key))[:60]}" for key in changed)
    now = ", ".join(f"{key} {here.get(key)}" for key in changed)
    return f"the plan was measured elsewhere ({was}; here {now}); compile again to measure here"
