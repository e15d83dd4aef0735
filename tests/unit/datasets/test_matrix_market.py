"""MatrixMarket files: what they hold against SciPy's reader, and what is refused."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from zeroskip import DamagedFile, InvalidArgument
from zeroskip.datasets.io import Structure, read_file, read_matrix_market
from zeroskip.formats import CSR

HEAD = b"%%MatrixMarket matrix coordinate "


def put(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_what_files_hold(tmp_path: Path) -> None:
    text = HEAD + b"real symmetric\n% a comment\n\n3 3 3\n1 1 2.5\n3 1 -1\n3 2 4\n"
    for path in (put(tmp_path / "a.mtx", text), put(tmp_path / "a.mtx.gz", gzip.compress(text))):
        found = read_matrix_market(path)
        assert isinstance(found, CSR)
        np.testing.assert_array_equal(found.to_dense(), [[2.5, 0, -1], [0, 0, 4], [-1, 4, 0]])
    pattern = read_matrix_market(put(tmp_path / "p.mtx", HEAD + b"pattern symmetric\n3 3 2\n2 1\n3 3\n"))
    assert isinstance(pattern, Structure)
    assert (pattern.indptr.tolist(), pattern.indices.tolist()) == ([0, 1, 2, 3], [1, 0, 2])
    empty = read_matrix_market(put(tmp_path / "e.mtx", HEAD + b"real general\n2 3 0\n"))
    assert isinstance(empty, CSR)
    assert (empty.shape, empty.nnz) == ((2, 3), 0)


def test_as_scipy_reads_them(data_dir: Path) -> None:
    scipy_io = pytest.importorskip("scipy.io")
    files = sorted((data_dir / "matrices").glob("*.mtx.gz"))
    if not files:
        pytest.skip("no MatrixMarket file in the data folder")
    for path in files:
        wanted = scipy_io.mmread(path).tocsr()
        found = read_matrix_market(path)
        assert found.shape == wanted.shape
        np.testing.assert_array_equal(found.indptr, wanted.indptr)
        wanted.sort_indices()
        np.testing.assert_array_equal(found.indices, wanted.indices)
        if isinstance(found, CSR):
            np.testing.assert_array_equal(found.data, wanted.data.astype(np.float32))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"nothing of the kind", "its first line is not that of one"),
        (b"", "its first line is not that of one"),
        (HEAD + b"real general\n", r"it ends too soon"),
        (HEAD + b"real general\n3 3\n", "not enough values"),
        (HEAD + b"real general\n3 3 2\n1 1 2.5\n", "it has 1 lines of 3 numbers, not 2 of 3"),
        (HEAD + b"real general\n3 3 1\n1 1 2.5\n1 2 2.5\n", "it has 2 lines of 3 numbers, not 1 of 3"),
        (HEAD + b"pattern general\n3 3 1\n1 1 2.5\n", "it has 1 lines of 3 numbers, not 1 of 2"),
        (HEAD + b"real general\n3 3 1\n4 1 2.5\n", r"entry 0 at \(4, 1\) lies outside of its 3 rows and 3 columns"),
        (HEAD + b"real general\n3 3 1\n0 1 2.5\n", r"entry 0 at \(0, 1\) lies outside"),
        (HEAD + b"real general\n3 3 1\n1 1.5 2.5\n", r"entry 0 at \(1, 1.5\) lies outside"),
        (HEAD + b"real general\n99999999999 3 1\n1 1 2\n", "it has 99999999999 rows"),
        (HEAD + b"real general\n1000000000 3 1\n1 1 2\n", "it has 1000000000 rows"),
        (HEAD + b"real general\n3 3 -1\n", "and -1 entries"),
        (HEAD + b"real symmetric\n3 4 1\n1 1 2\n", "it is symmetric with 3 rows and 4 columns"),
        (HEAD + b"real general\n2 2 1\n2 1 1e300\n", r"row 1, column 0 is 1e\+300, no finite float32"),
        (HEAD + b"real general\n2 2 1\n2 1 nan\n", "row 1, column 0 is nan"),
        (HEAD + b"real general\n2 2 2\n2 1 1\n2 1 1\n", r"row 1, column 0 \(from 0\) is there twice"),
        (HEAD + b"real symmetric\n2 2 2\n2 1 1\n1 2 1\n", r"row 0, column 1 \(from 0\) is there twice"),
        (HEAD + b"complex general\n1 1 1\n1 1 1 2\n", "it is coordinate complex general; only real"),
        (HEAD + b"real skew-symmetric\n2 2 1\n2 1 1\n", "it is coordinate real skew-symmetric; only real"),
        (HEAD + b"complex hermitian\n2 2 1\n2 1 1 0\n", "it is coordinate complex hermitian; only real"),
        (b"%%MatrixMarket matrix array real general\n1 1\n1\n", "it is array real general; only real"),
    ],
)
def test_a_bad_file_is_one_clear_error(content: bytes, says: str, tmp_path: Path) -> None:
    with pytest.raises(DamagedFile, match=says) as caught:
        read_matrix_market(put(tmp_path / "a.mtx", content))
    assert str(caught.value).startswith(str(tmp_path / "a.mtx"))
    assert "\n" not in str(caught.value)


def test_a_cut_gzip_and_other_names(tmp_path: Path) -> None:
    whole = gzip.compress(HEAD + b"real general\n1 1 1\n1 1 2\n")
    for content in (b"no gzip", whole[: len(whole) // 2]):
        with pytest.raises(DamagedFile, match=r"a\.mtx\.gz: it is no MatrixMarket file"):
            read_matrix_market(put(tmp_path / "a.mtx.gz", content))
    with pytest.raises(DamagedFile, match="No such file"):
        read_matrix_market(tmp_path / "none.mtx")
    with pytest.raises(InvalidArgument, match=r"a\.txt is no \.smtx, \.mtx, \.mtx\.gz file"):
        read_file(tmp_path / "a.txt")
