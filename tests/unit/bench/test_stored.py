"""Matrices from files in `bench spmm`: what is read, what is refused, and what rows say of them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from zeroskip import DamagedFile, InvalidArgument
from zeroskip.bench import spmm
from zeroskip.bench.stored import StoredProblem, dlmc_sample, files
from zeroskip.cli import main
from zeroskip.datasets import provenance, registry

SMTX = b"3, 4, 5\n0 2 2 5\n1 3 0 1 2\n"
WORDS = ["--n", "4", "--budget", "0.02", "--rounds", "2", "--peers", "scipy,numpy", "--kernels", "spmm_csr_f32_scalar"]


@pytest.fixture(autouse=True)
def small_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spmm.machine, "last_level_cache_bytes", lambda: 50_000)
    monkeypatch.setattr(spmm.machine, "claimed_cache_bytes", lambda: 0)


def put(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def stored_problem(path: Path, dtype: str = "float32", seed: int = 0) -> StoredProblem:
    return StoredProblem(path, path.name, dtype, seed)


def test_a_pattern_gets_values_from_seed_and_name(tmp_path: Path) -> None:
    path, other = put(tmp_path / "a.smtx", SMTX), put(tmp_path / "b.smtx", SMTX)
    a = stored_problem(path).matrix()
    np.testing.assert_array_equal(a.to_dense() != 0, [[0, 1, 0, 1], [0, 0, 0, 0], [1, 1, 1, 0]])
    np.testing.assert_array_equal(a.to_dense(), stored_problem(path).matrix().to_dense())
    for changed in (stored_problem(path, seed=1), stored_problem(other)):
        assert (a.to_dense() != changed.matrix().to_dense()).any()


def test_matrix_market_keeps_its_values(tmp_path: Path) -> None:
    text = b"%%MatrixMarket matrix coordinate real symmetric\n3 3 3\n1 1 2.5\n3 1 -1\n3 2 4\n"
    for path in (put(tmp_path / "a.mtx", text), put(tmp_path / "a.mtx.gz", gzip.compress(text))):
        np.testing.assert_array_equal(stored_problem(path).matrix().to_dense(), [[2.5, 0, -1], [0, 0, 4], [-1, 4, 0]])
    pattern = put(tmp_path / "p.mtx", b"%%MatrixMarket matrix coordinate pattern general\n2 2 1\n2 1\n")
    a = stored_problem(pattern).matrix().to_dense()
    np.testing.assert_array_equal(a != 0, [[0, 0], [1, 0]])


def test_codes_from_a_file(tmp_path: Path) -> None:
    a = stored_problem(put(tmp_path / "a.smtx", SMTX), "int8").matrix()
    assert (a.dtype, a.nnz) == ("int8", 5)


HEAD = b"%%MatrixMarket matrix coordinate "


@pytest.mark.parametrize(
    ("name", "content", "error", "says"),
    [
        ("a.smtx", SMTX[:-3], DamagedFile, r"a\.smtx, line 3: there are 4 column indices"),
        ("a.smtx", b"2, 2, 0\n0 0 0\n\n", DamagedFile, r"a\.smtx: it has no entries"),
        ("a.mtx", b"nothing of the kind", DamagedFile, r"a\.mtx: it is no MatrixMarket file"),
        ("a.mtx", HEAD + b"real general\n3 3 2\n1 1 2.5\n", DamagedFile, r"a\.mtx: it is no MatrixMarket file"),
        ("a.mtx", HEAD + b"real general\n3 3 1\n4 1 2.5\n", DamagedFile, r"a\.mtx: it is no MatrixMarket file"),
        ("a.mtx.gz", b"no gzip", DamagedFile, r"a\.mtx\.gz: it is no MatrixMarket file"),
        ("a.mtx", HEAD + b"complex general\n1 1 1\n1 1 1 2\n", DamagedFile, "only real, integer and pattern"),
        ("a.mtx", HEAD + b"real general\n2 2 1\n2 1 1e300\n", DamagedFile, "row 1, column 0 is 1e[+]300"),
        ("a.npz", b"", InvalidArgument, r"a\.npz is no \.smtx"),
    ],
)
def test_a_bad_file_is_refused_by_name(
    name: str, content: bytes, error: type[Exception], says: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=says):
        stored_problem(put(tmp_path / name, content)).check()


def test_a_value_without_a_code_names_the_file(tmp_path: Path) -> None:
    path = put(tmp_path / "a.mtx", HEAD + b"real general\n1 1 1\n1 1 1e30\n")
    with pytest.raises(InvalidArgument, match=r"a\.mtx cannot be int8: quantize: a holds 1\.0"):
        stored_problem(path, "int8").check()


def test_labels_are_paths_below_what_files_share(tmp_path: Path) -> None:
    for name in ("x/a.smtx", "y/a.smtx", "m/pruned/0.9/a.smtx"):
        put(tmp_path / name, SMTX)
    labels = [label for _, label in files([str(tmp_path / "**/*.smtx"), str(tmp_path / "x" / "a.smtx")])]
    assert labels == ["m/pruned/0.9/a.smtx", "x/a.smtx", "y/a.smtx"]
    assert [label for _, label in files([str(tmp_path / "m/pruned/0.9/a.smtx")])] == ["m/pruned/0.9/a.smtx"]
    with pytest.raises(InvalidArgument, match="no file fits"):
        files([str(tmp_path / "*.mtx")])


def test_the_command_measures_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for level in ("0.5", "0.9"):
        put(tmp_path / "m" / "random" / level / "a.smtx", SMTX)
    assert main(["bench", "spmm", "--matrix", str(tmp_path / "m/**/*.smtx"), *WORDS, "--json"]) == 0
    shown = capsys.readouterr()
    document = json.loads(shown.out)
    first = document["rows"][0]
    assert {name: first[name] for name in ("matrix", "model", "method", "level", "pattern", "sparsity")} == {
        "matrix": "m/random/0.5/a.smtx",
        "model": "m",
        "method": "random",
        "level": 0.5,
        "pattern": "stored",
        "sparsity": 1 - 5 / 12,
    }
    lines = [(line["method"], line["level"], line["cells"]) for line in document["summary"]["ratios"]]
    assert lines == [("random", 0.5, 1), ("random", 0.9, 1), ("random", "all", 2)]
    assert set(document["summary"]["ratios"][-1]["ours"]) == {"scipy csr", "numpy dense", "best sparse", "best dense"}
    assert "m/random/0.9/a.smtx" in shown.err


def test_a_matrix_too_large_for_dense(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spmm, "DENSE_ELEMS", 11)
    path = put(tmp_path / "a.smtx", SMTX)
    asked = spmm.SpmmSettings(matrices=[(path, "a")], ns=[4], peers=["numpy"], budget_s=0.01, rounds=1)
    rows = list(spmm.bench_spmm(asked))
    assert {row["status"] for row in rows if row["format"] == "dense"} == {"skipped"}
    assert {row["choice"] for row in rows} == {None}
    assert any(row["status"] == "ok" for row in rows)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--matrix", "a.smtx", "--shape", "4x4"], "--shape does not go with --matrix"),
        (["--dlmc", "--pattern", "2:4"], "--pattern does not go with --matrix and --dlmc"),
        (["--group", "32"], "--group is for --dtype int8 and int4"),
    ],
)
def test_options_that_contradict(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "spmm", *words]) == 2
    assert says in capsys.readouterr().err


def test_the_real_sample(data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if (reason := registry.get("dlmc").why_not()) is not None:
        pytest.skip(reason)
    monkeypatch.setenv("ZEROSKIP_CACHE_DIR", str(tmp_path))
    found = dlmc_sample()
    assert 260 < len(found) < 270
    assert {provenance(label)["model"] for _, label in found} == {"rn50", "transformer"}
    for path, label in found[::45]:
        a = StoredProblem(path, label, "float32", 0).matrix()
        assert a.nnz > 0
