"""`.smtx` files: what they hold, and every way in which one can contradict itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zeroskip import DamagedFile
from zeroskip.datasets.io.smtx import parse_smtx, read_smtx

GOOD = b"3, 4, 5\n0 2 2 5\n1 3 0 1 2\n"


def test_reads_a_pattern() -> None:
    found = parse_smtx(GOOD, "m.smtx")
    assert found.shape == (3, 4)
    np.testing.assert_array_equal(found.indptr, [0, 2, 2, 5])
    np.testing.assert_array_equal(found.indices, [1, 3, 0, 1, 2])


@pytest.mark.parametrize(
    "text",
    [
        b"% a comment\n% another\n3 4 5\n0 2 2 5\n1 3 0 1 2",
        b"3,4,5\r\n0 2 2 5 \r\n 1 3\t0 1 2\r\n\n \n",
    ],
)
def test_takes_the_forms_that_are_in_use(text: bytes) -> None:
    np.testing.assert_array_equal(parse_smtx(text, "m.smtx").indices, [1, 3, 0, 1, 2])


@pytest.mark.parametrize("text", [b"2, 2, 0\n0 0 0\n\n", b"2, 2, 0\n0 0 0"])
def test_a_matrix_without_entries(text: bytes) -> None:
    assert parse_smtx(text, "m.smtx").indices.size == 0


def test_a_row_may_end_where_the_next_begins() -> None:
    found = parse_smtx(b"4, 2, 4\n0 0 2 4 4\n0 1 0 1\n", "m.smtx")
    np.testing.assert_array_equal(found.indices, [0, 1, 0, 1])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"", r"line 1: the header has 0 numbers"),
        (b"% only a comment", r"line 1: the header must be whole numbers"),
        (b"3, 4\n0 0 0 0\n\n", r"line 1: the header has 2 numbers"),
        (b"3, four, 5\n0 2 2 5\n1 3 0 1 2\n", r"line 1: the header must be whole numbers"),
        (b"-3, 4, 5\n0 2 2 5\n1 3 0 1 2\n", r"line 1: the header must be whole numbers"),
        (b"0, 4, 0\n0\n\n", r"line 1: the header says 0 x 4 with 0 entries"),
        (b"3, 4, 13\n0 2 2 13\n1 3 0 1 2\n", r"line 1: the header says 3 x 4 with 13 entries"),
        (b"3000000000, 4, 5\n0\n\n", r"line 1: the header says 3000000000 x 4"),
        (b"3, 4, 99999999999999999999\n0\n\n", r"line 1: the header must be whole numbers"),
        (b"3, 4, 5", r"m\.smtx: it ends before the row offsets"),
        (b"3, 4, 5\n", r"m\.smtx: it ends before the row offsets"),
        (b"3, 4, 5\n0 2 2\n1 3 0 1 2\n", r"line 2: there are 3 row offsets, 3 rows have 4"),
        (b"3, 4, 5\n0 2 2 x\n1 3 0 1 2\n", r"line 2: the row offsets must be whole numbers"),
        (b"3, 4, 5\n1 2 2 5\n1 3 0 1 2\n", r"line 2: the row offsets go from 1 to 5"),
        (b"3, 4, 5\n0 2 2 4\n1 3 0 1 2\n", r"line 2: the row offsets go from 0 to 4"),
        (b"3, 4, 5\n0 3 2 5\n1 2 3 1 2\n", r"line 2: row 1 begins at 3 and ends at 2"),
        (b"3, 4, 5\n0 2 2 5", r"m\.smtx: it ends before the column indices"),
        (b"3, 4, 5\n0 2 2 5\n1 3 0 1\n", r"line 3: there are 4 column indices, the header says 5"),
        (b"3, 4, 5\n0 2 2 5\n1 3 0 1 2 3\n", r"line 3: there are 6 column indices"),
        (b"3, 4, 5\n0 2 2 5\n1 3 0 1 -2\n", r"line 3: the column indices must be whole numbers"),
        (b"3, 4, 5\n0 2 2 5\n1 3 0 1 4\n", r"line 3: entry 4, of row 2, has column 4, there are 4 columns"),
        (b"3, 4, 5\n0 2 2 5\n3 1 0 1 2\n", r"line 3: column 1 of row 0 follows column 3, they must increase"),
        (b"3, 4, 5\n0 2 2 5\n1 3 0 1 1\n", r"line 3: column 1 of row 2 is there twice"),
        (b"3, 4, 5\n0 2 2 5\n1 3 0 1 2\n7\n", r"line 4: there is more text behind"),
        (b"% c\n3, 4, 5\n0 2 2 5\n1 3 0 1 4\n", r"line 4: entry 4"),
        (b"3, 4, 5\n0 2 2 5\n1 3 0 1 \xff\n", r"line 3: the column indices must be whole numbers"),
    ],
)
def test_refuses_by_place(text: bytes, says: str) -> None:
    with pytest.raises(DamagedFile, match=says):
        parse_smtx(text, "m.smtx")


@given(st.integers(0, len(GOOD) - 1), st.integers(0, 255))
def test_a_changed_byte_is_a_pattern_or_refused(place: int, value: int) -> None:
    text = bytearray(GOOD)
    text[place] = value
    try:
        found = parse_smtx(bytes(text), "m.smtx")
    except DamagedFile:
        return
    assert found.indptr[-1] == found.indices.size
    assert found.indptr.size == found.shape[0] + 1
    assert (found.indices < found.shape[1]).all()


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DamagedFile, match=r"none\.smtx: it cannot be read \(No such file"):
        read_smtx(tmp_path / "none.smtx")


def test_reads_the_real_one(data_dir: Path) -> None:
    path = data_dir / "dlmc" / "layers.0.blocks.0.attn.proj_swin_tiny_unstructured_50.smtx"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    found = read_smtx(path)
    assert (found.shape, found.indices.size) == ((96, 96), 4608)
