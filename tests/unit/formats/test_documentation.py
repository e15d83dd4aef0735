"""The examples of docs/formats.md are run, so that they stay true."""

from __future__ import annotations

import doctest
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[3] / "docs" / "formats.md"


def test_the_examples_of_the_page() -> None:
    if not PAGE.exists():
        pytest.skip(f"{PAGE} is not here: the tests run outside of the repository")
    result = doctest.testfile(str(PAGE), module_relative=False, encoding="utf-8")
    assert result.attempted > 15
    assert result.failed == 0
