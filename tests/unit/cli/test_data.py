"""`zeroskip data`: masks as files, exact and repeatable; whole or not there; read back and refused when damaged."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zeroskip import datasets
from zeroskip._errors import DamagedFile, InvalidArgument
from zeroskip.cli.main import main
from zeroskip.datasets.io import npz as npz_module
from zeroskip.datasets.io.smtx import format_smtx, parse_smtx, read_smtx
from zeroskip.formats import CSR
from zeroskip.io import folder as folder_module
from zeroskip.io import masks
from zeroskip.ops.rules import Rule
from zeroskip.sparsify import attention

SMALL = ["--lengths", "64,128", "--sparsity", "0.5,0.9"]


def make(target: Path, *words: str, code: int = 0) -> None:
    assert main(["data", "make", "masks", "-o", str(target), "--quiet", *words]) == code


def content(target: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in target.iterdir()}


def same(a: CSR, b: CSR) -> bool:
    return a.shape == b.shape and np.array_equal(a.indptr, b.indptr) and np.array_equal(a.indices, b.indices)


# ---- what is made ----


def test_the_default_is_the_84_masks_of_the_survey() -> None:
    wanted = masks.survey_masks()
    assert len(wanted) == len({one.name for one in wanted}) == 84
    assert {one.kind for one in wanted} == {"random", "window", "global", "bigbird"}
    assert {one.length for one in wanted} == {512, 1024, 2048}
    assert {one.sparsity for one in wanted} == {0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98}
    assert masks.MaskFile("window", 512, 0.95).name == "window_512_95.smtx"
    assert masks.MaskFile("window", 512, 0.9995).name == "window_512_99.95.smtx"
    for one in wanted:
        found = attention.registry.get(one.kind).entries(one.length, one.length, sparsity=one.sparsity)
        assert found == round((1 - one.sparsity) * one.length**2)


def test_files_hold_the_masks_and_the_index_says_which(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "masks"
    make(target, *SMALL, "--seed", "5")
    shown = capsys.readouterr()
    assert "16 masks in" in shown.out
    assert shown.err == ""
    index = json.loads((target / "masks.json").read_text())
    assert (index["zeroskip"], index["version"], len(index["masks"])) == ("masks", 1, 16)
    assert {path.name for path in target.iterdir()} == {"masks.json", *(entry["file"] for entry in index["masks"])}
    for entry in index["masks"]:
        path = target / entry["file"]
        found = read_smtx(path)
        n, sparsity = entry["length"], entry["sparsity"]
        expected = attention.make(entry["kind"], n, n, sparsity=sparsity, seed=5)
        assert isinstance(expected, CSR)
        assert np.array_equal(found.indptr, expected.indptr)
        assert np.array_equal(found.indices, expected.indices)
        assert entry["nnz"] == expected.nnz == round((1 - sparsity) * n * n)
        assert entry["seed"] == 5
        assert entry["bytes"] == path.stat().st_size
        assert entry["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_same_seed_gives_the_same_bytes_in_both_formats(tmp_path: Path) -> None:
    for form in ("smtx", "npz"):
        make(tmp_path / f"{form}1", *SMALL, "--format", form)
        make(tmp_path / f"{form}2", *SMALL, "--format", form)
        assert content(tmp_path / f"{form}1") == content(tmp_path / f"{form}2")
    make(tmp_path / "other", *SMALL, "--seed", "1")
    assert content(tmp_path / "smtx1")["random_64_50.smtx"] != content(tmp_path / "other")["random_64_50.smtx"]
    sparse = pytest.importorskip("scipy.sparse")
    for entry in json.loads((tmp_path / "npz1" / "masks.json").read_text())["masks"]:
        path = tmp_path / "npz1" / entry["file"]
        mine, theirs = masks.read_mask(path), sparse.load_npz(path)
        text = masks.read_mask(tmp_path / "smtx1" / path.with_suffix(".smtx").name)
        assert isinstance(mine, CSR)
        assert isinstance(text, CSR)
        assert np.array_equal(theirs.toarray(), mine.to_dense())
        assert same(mine, text) or mine.indices.dtype != text.indices.dtype


def test_long_masks_are_rules_with_their_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "long"
    kinds = ["--kinds", "random,window,longformer,bigbird", "--sparsity", "0.98"]
    make(target, "--lengths", "none", "--long", "4096,65536", *kinds)
    assert sum(path.stat().st_size for path in target.iterdir()) < 10_000
    stored = masks.read_mask(target / "window_65536_98.json")
    assert isinstance(stored, masks.StoredRule)
    assert stored.rule == attention.rule("window", 65536, 65536, sparsity=0.98)
    assert 0 <= round(0.02 * 65536**2) - stored.nnz < 2 * 65536
    for kind in ("random", "window", "longformer", "bigbird"):
        short = masks.read_mask(target / f"{kind}_4096_98.json")
        assert isinstance(short, masks.StoredRule)
        assert (short.rule is None) == (kind in ("random", "bigbird"))
        assert short.make().nnz == short.nnz
    capsys.readouterr()
    assert main(["data", "show", str(target / "window_65536_98.json"), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["rule"] == {"window": stored.rule.window, "dilation": 1, "global_tokens": 0, "causal": False}
    assert shown["nnz"] == stored.nnz
    assert main(["data", "show", str(target / "bigbird_65536_98.json")]) == 0
    assert "bigbird mask by rule: drawn when it is made" in capsys.readouterr().out


def test_json_is_the_index(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(tmp_path / "masks", *SMALL, "--json")
    assert json.loads(capsys.readouterr().out) == json.loads((tmp_path / "masks" / "masks.json").read_text())


# ---- going on, and not writing over ----


def test_a_second_run_makes_only_what_is_missing_or_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "masks"
    make(target, *SMALL)
    before = content(target)
    (target / "window_64_90.smtx").unlink()
    written: list[str] = []
    write = folder_module.write_file
    monkeypatch.setattr(masks, "write_file", lambda path, data: (written.append(Path(path).name), write(path, data))[1])
    make(target, *SMALL)
    assert written == ["window_64_90.smtx", "masks.json"]
    assert {name: json.loads(data) if name == "masks.json" else data for name, data in content(target).items()} == {
        name: json.loads(data) if name == "masks.json" else data for name, data in before.items()
    }
    make(target, "--lengths", "32", "--sparsity", "0.5", "--kinds", "window")  # more, beside what there is
    assert len(json.loads((target / "masks.json").read_text())["masks"]) == 17


def test_an_interrupted_run_leaves_whole_files_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path / "whole", *SMALL)
    target, calls = tmp_path / "masks", [0]

    def interrupted(*arguments: Any) -> bytes:
        calls[0] += 1
        if calls[0] == 4:
            raise KeyboardInterrupt
        return format_smtx(*arguments)

    monkeypatch.setattr(masks, "format_smtx", interrupted)
    make(target, *SMALL, code=130)
    listed = [entry["file"] for entry in json.loads((target / "masks.json").read_text())["masks"]]
    assert sorted(path.name for path in target.iterdir()) == sorted([*listed, "masks.json"])
    assert len(listed) == 3
    monkeypatch.undo()
    make(target, *SMALL)
    assert content(target) == content(tmp_path / "whole")


def test_a_run_cut_off_between_a_file_and_the_index_goes_on(tmp_path: Path) -> None:
    make(tmp_path / "whole", *SMALL)
    target = tmp_path / "masks"
    target.mkdir()
    name = "random_64_50.smtx"
    (target / name).write_bytes((tmp_path / "whole" / name).read_bytes())
    make(target, *SMALL)
    assert content(target) == content(tmp_path / "whole")


def test_a_full_disk_leaves_no_partial_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    target, count, flush = tmp_path / "masks", [0], os.fsync

    def full(handle: int) -> None:
        count[0] += 1
        if count[0] == 5:
            raise OSError(28, "No space left on device")
        flush(handle)

    monkeypatch.setattr(folder_module.os, "fsync", full)
    make(target, *SMALL, code=1)
    assert "No space left on device" in (shown := capsys.readouterr().err)
    assert "free some space" in shown
    listed = [entry["file"] for entry in json.loads((target / "masks.json").read_text())["masks"]]
    assert sorted(path.name for path in target.iterdir()) == sorted([*listed, "masks.json"])
    assert len(listed) == 2


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--seed", "1"], "has seed 0, 1 is asked for"),
        (["--seed", "0", "--sparsity", "0.9000000001"], "has sparsity 0.9, 0.9000000001 is asked for"),
    ],
)
def test_masks_of_another_seed_are_not_written_over(
    words: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "masks"
    make(target, *SMALL)
    before = content(target)
    make(target, *SMALL, *words, code=1)
    assert says in capsys.readouterr().err
    assert content(target) == before


def test_what_is_not_ours_is_not_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "masks"
    target.mkdir()
    (target / "random_64_50.smtx").write_text("mine")
    make(target, *SMALL, code=1)
    assert "is not the mask that is asked for" in capsys.readouterr().err
    assert content(target) == {"random_64_50.smtx": b"mine"}
    make(target / "random_64_50.smtx", *SMALL, code=1)
    assert "is a file" in capsys.readouterr().err
    for text in (
        "[]",
        "{",
        '{"zeroskip": "masks", "version": 2}',
        '{"zeroskip": "masks", "version": 1, "masks": [{}]}',
    ):
        (target / "masks.json").write_text(text)
        make(target, *SMALL, code=1)
        assert "masks.json" in capsys.readouterr().err
        assert (target / "masks.json").read_text() == text


def test_an_index_cannot_lead_out_of_its_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "masks"
    make(target, *SMALL)
    index = json.loads((target / "masks.json").read_text())
    index["masks"][0]["file"] = "../random_64_50.smtx"
    (target / "masks.json").write_text(json.dumps(index))
    capsys.readouterr()
    make(target, *SMALL, code=1)
    assert "an entry lacks a field or has a wrong one" in capsys.readouterr().err


# ---- wrong use ----


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["--kinds", "diagonal"], 2, "choose one of: bigbird"),
        (["--sparsity", "90"], 2, "90 % is written 0.9"),
        (["--lengths", "0"], 2, "below 1"),
        (["--seed", "-1"], 2, "below 0"),
        (["--format", "mtx"], 2, "smtx"),
        (["--lengths", "none"], 2, "add --long"),
        (["--long", "512"], 2, "512 is among --lengths and --long"),
        (["--lengths", "64", "--sparsity", "0.5,0.999"], 1, "choose a sparsity from"),
        (["--lengths", "100", "--kinds", "window,blockwise"], 1, "chunk is 64"),
    ],
)
def test_what_cannot_be_made_is_refused_before_anything_is_written(
    words: list[str], code: int, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path / "masks", *words, code=code)
    shown = capsys.readouterr()
    assert says in shown.err
    assert shown.out == ""
    assert not (tmp_path / "masks").exists()


@pytest.mark.parametrize("words", [["data"], ["data", "make"], ["data", "make", "nothing"], ["data", "show"]])
def test_half_a_command_is_wrong_use(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert "usage: zeroskip data" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["make"], ["make", "masks"], ["show"], ["list"], ["get"]])
def test_help_of_every_part_has_examples(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", *words, "--help"]) == 0
    shown = capsys.readouterr().out
    assert "zeroskip data" in shown.split("examples:")[1]
    assert max(map(len, shown.splitlines())) <= 120


# ---- show ----


def test_show_prints_the_features_of_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mask = attention.make("bigbird", 256, 256, sparsity=0.9)
    assert isinstance(mask, CSR)
    path = tmp_path / "mask.smtx"
    path.write_bytes(format_smtx(mask.shape, mask.indptr, mask.indices))
    assert main(["data", "show", str(path), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown == {"file": str(path), **datasets.features(mask), "shape": [256, 256]}
    described = attention.describe(mask)
    assert shown["row_std"] == pytest.approx(described["row_std"])
    assert shown["block_fill"]["64x64"] == described["block_fill"]["64"]
    assert main(["data", "show", str(path)]) == 0
    text = capsys.readouterr().out
    assert f"256 x 256, {mask.nnz} entries, sparsity 0.899994" in text
    assert "64x64 0.1 (16)" in text


def test_show_reads_matrix_market(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "%%MatrixMarket matrix coordinate real general\n3 4 2\n1 1 2.5\n3 4 -1\n"
    for path, data in ((tmp_path / "a.mtx", text.encode()), (tmp_path / "a.mtx.gz", gzip.compress(text.encode()))):
        path.write_bytes(data)
        assert main(["data", "show", str(path), "--json"]) == 0
        shown = json.loads(capsys.readouterr().out)
        assert (shown["shape"], shown["nnz"], shown["empty_rows"]) == ([3, 4], 2, 1)


def npz(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


GOOD_NPZ: dict[str, Any] = {
    "format": np.array(b"csr"),
    "shape": np.array([2, 3]),
    "indptr": np.array([0, 1, 2]),
    "indices": np.array([0, 2]),
    "data": np.ones(2),
}
GOOD_RULE: dict[str, Any] = {
    "zeroskip": "mask rule",
    "version": 1,
    "kind": "window",
    "queries": 10,
    "keys": 10,
    "nnz": 28,
    "seed": 0,
    "sparsity": 0.7,
    "rule": {"window": 1, "dilation": 1, "global_tokens": 0, "causal": False},
}


def test_the_good_ones_of_the_damaged_ones_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(npz(**GOOD_NPZ))
    (tmp_path / "a.json").write_text(json.dumps(GOOD_RULE))
    found = masks.read_mask(tmp_path / "a.npz")
    assert isinstance(found, CSR)
    assert found.to_dense().tolist() == [[1, 0, 0], [0, 0, 1]]
    rule = masks.read_mask(tmp_path / "a.json")
    assert isinstance(rule, masks.StoredRule)
    assert rule.rule == Rule(window=1)


@pytest.mark.parametrize(
    "change",
    [
        {"format": np.array(b"coo")},
        {"shape": np.array([2])},
        {"shape": np.array([2, 2])},
        {"shape": np.array([3, 3])},
        {"shape": np.array([[2, 3]])},
        {"indptr": np.array([0, 2, 1])},
        {"indptr": np.array([0, 1, 2], dtype=object)},
        {"indptr": np.array([0.0, 1.0, 2.0])},
        {"indices": np.array([0, -1])},
        {"indices": np.array([[0, 2]])},
        {"indices": np.array([0, 2**62])},
    ],
)
def test_a_damaged_npz_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(npz(**(GOOD_NPZ | change)))
    with pytest.raises(DamagedFile, match=r"a\.npz"):
        masks.read_mask(tmp_path / "a.npz")


@pytest.mark.parametrize("cut", [0, 10, 100, 400])
def test_a_cut_npz_is_refused(cut: int, tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(npz(**GOOD_NPZ)[:cut])
    with pytest.raises(DamagedFile, match=r"a\.npz"):
        masks.read_mask(tmp_path / "a.npz")


@given(at=st.integers(0, 10_000), value=st.integers(0, 255), packed=st.booleans())
@settings(max_examples=300)
def test_an_npz_with_a_changed_byte_is_read_or_refused(at: int, value: int, packed: bool) -> None:
    file = io.BytesIO()
    (np.savez_compressed if packed else np.savez)(file, **GOOD_NPZ)
    data = bytearray(file.getvalue())
    data[at % len(data)] = value
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.npz"
        path.write_bytes(data)
        try:
            found = masks.read_mask(path)
        except DamagedFile:
            return
    assert isinstance(found, CSR)
    assert found.shape[0] + 1 == found.indptr.size


def test_an_npz_that_lacks_or_inflates_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.npz"
    path.write_bytes(npz(**{name: array for name, array in GOOD_NPZ.items() if name != "indptr"}))
    with pytest.raises(DamagedFile):
        masks.read_mask(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("indices.npy", b"0" * 100_000)
    monkeypatch.setattr(npz_module, "LIMIT_BYTES", 1000)
    with pytest.raises(DamagedFile, match="unpacks to more than 2000 bytes"):
        masks.read_mask(path)


@pytest.mark.parametrize(
    "change",
    [
        {"zeroskip": "masks"},
        {"version": 2},
        {"queries": "10"},
        {"queries": 0},
        {"queries": 10**15, "keys": 10**15},
        {"keys": True},
        {"nnz": 27},
        {"rule": {"window": -1}},
        {"rule": {"windows": 1}},
        {"rule": 5},
        {"rule": None, "kind": "magic"},
        {"rule": None, "kind": "random", "nnz": 29},
        {"rule": None, "kind": "random", "sparsity": 2},
        {"sparsity": "x"},
    ],
)
def test_a_damaged_rule_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(GOOD_RULE | change))
    with pytest.raises(DamagedFile, match=r"a\.json"):
        masks.read_mask(tmp_path / "a.json")


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 100_000, '"x"', "\x00"])
def test_what_is_no_rule_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(DamagedFile, match=r"a\.json"):
        masks.read_mask(tmp_path / "a.json")


def test_other_files_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.txt").write_text("x")
    assert main(["data", "show", str(tmp_path / "a.txt")]) == 1
    assert ".smtx, .npz, .json" in capsys.readouterr().err
    assert main(["data", "show", str(tmp_path / "nothing.smtx")]) == 2
    assert "nothing.smtx is not a file, and" in capsys.readouterr().err
    with pytest.raises(DamagedFile, match="cannot be read"):
        masks.read_mask(tmp_path / "nothing.npz")


# ---- .smtx ----


def test_smtx_is_laid_out_as_the_collection_does() -> None:
    indptr, indices = np.array([0, 2, 2, 3]), np.array([0, 3, 1], dtype=np.uint16)
    text = format_smtx((3, 4), indptr, indices)
    assert text == b"3, 4, 3\n0 2 2 3\n0 3 1\n"
    found = parse_smtx(text, "text")
    assert found.shape == (3, 4)
    assert np.array_equal(found.indices, indices)
    empty = parse_smtx(format_smtx((2, 2), np.zeros(3, dtype=np.int64), np.zeros(0, dtype=np.int32)), "text")
    assert empty.indices.size == 0


def test_smtx_in_several_pieces_is_the_same_text() -> None:
    count = 2**20 + 5
    text = format_smtx((1, count), np.array([0, count]), np.arange(count))
    assert text.split(b"\n")[2] == " ".join(map(str, range(count))).encode()


def test_smtx_that_could_not_be_read_is_not_written() -> None:
    with pytest.raises(InvalidArgument, match="at most 2147483647"):
        format_smtx((2**31, 1), np.array([0, 0]), np.zeros(0, dtype=np.int32))


def test_a_file_of_the_collection_is_written_as_it_was(data_dir: Path) -> None:
    found = sorted((data_dir / "dlmc").glob("*.smtx"))
    if not found:
        pytest.skip("no .smtx file in the data folder")
    structure = read_smtx(found[0])
    again = format_smtx(structure.shape, structure.indptr, structure.indices)
    lines = [line for line in found[0].read_bytes().splitlines() if not line.startswith(b"%")]
    assert again.replace(b",", b" ").split() == b"\n".join(lines).replace(b",", b" ").split()
