"""What all tests share: real data where it is, and a count of the checks each instruction set met."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import settings

# Before anything of zeroskip runs, here or in a process of a test: the user's cache is neither read nor written.
CACHE = Path(tempfile.mkdtemp(prefix="zeroskip-tests-"))
os.environ["ZEROSKIP_CACHE_DIR"] = str(CACHE)
atexit.register(shutil.rmtree, CACHE, ignore_errors=True)

# Examples are drawn from a fixed seed: a failure is there on every run, and a pass means the same everywhere.
settings.register_profile("zeroskip", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("zeroskip")


@pytest.fixture(autouse=True)
def nothing_remembered() -> None:
    """No test meets the measurements of another one."""
    (CACHE / "choices.json").unlink(missing_ok=True)
    if cache := sys.modules.get("zeroskip.ops._cache"):
        cache.forget()


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data; skips the test where there is none."""
    text = os.environ.get("ZEROSKIP_DATA_DIR", "")
    if not text:
        pytest.skip("ZEROSKIP_DATA_DIR is not set: no real data here")
    folder = Path(text)
    if not folder.is_dir():
        pytest.skip(f"ZEROSKIP_DATA_DIR is {text}, which is not a folder")
    return folder


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many conformance tests, and single checks in them, ran for each instruction set or rival library."""
    tests: Counter[str] = Counter()
    checks: Counter[str] = Counter()
    for report in terminalreporter.stats.get("passed", []) + terminalreporter.stats.get("failed", []):
        properties = dict(getattr(report, "user_properties", ()))
        if getattr(report, "when", None) == "call" and "isa" in properties:
            tests[str(properties["isa"])] += 1
            checks[str(properties["isa"])] += int(str(properties.get("checks", 1)))
    if tests:
        terminalreporter.section("kernel conformance")
        for isa, count in sorted(tests.items()):
            terminalreporter.write_line(f"{isa:12} {count:6} tests {checks[isa]:8} checks")
