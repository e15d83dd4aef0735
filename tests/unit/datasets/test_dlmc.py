"""The Deep Learning Matrix Collection: what an archive holds, unpacked once and with suspicion; what names say."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest

from zeroskip import DamagedFile, InvalidArgument, MissingDependency
from zeroskip.bench.stored import dlmc_sample
from zeroskip.datasets import Dataset, Entry, _archive, find, provenance, registry
from zeroskip.datasets._archive import members, unpack
from zeroskip.formats import CSR

SMTX = b"3, 4, 5\n0 2 2 5\n1 3 0 1 2\n"
NAMES = ("m/random/0.5/a", "m/random/0.9/a", "m/magnitude/0.9/b")
NOTHING = "m/dropout/0.9/c"


def archive(path: Path, members: dict[str, bytes], mode: str = "w:xz") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as out:  # type: ignore[call-overload]
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            out.addfile(info, io.BytesIO(content))
    return path


@pytest.fixture
def sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder with a small collection, and a cache folder of its own."""
    monkeypatch.setenv("ZEROSKIP_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("ZEROSKIP_CACHE_DIR", str(tmp_path / "cache"))
    content = {f"dlmc/{name}.smtx": SMTX for name in NAMES} | {f"dlmc/{NOTHING}.smtx": b"2, 2, 0\n0 0 0\n\n"}
    archive(tmp_path / "dlmc" / "dlmc_sample.tar.xz", content)
    return tmp_path


def test_without_the_collection_the_reason_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZEROSKIP_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("ZEROSKIP_CACHE_DIR", str(tmp_path / "cache"))
    dlmc = registry.get("dlmc")
    assert isinstance(dlmc, Dataset)
    assert "zeroskip data get dlmc" in str(dlmc.why_not())
    for call in (dlmc.entries, dlmc_sample):
        with pytest.raises(MissingDependency, match=r"dlmc_sample\.tar\.xz is not in .*; zeroskip data get dlmc\.$"):
            call()


def test_entries_come_without_unpacking(sample: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_archive, "unpack", None)
    entries = registry.get("dlmc").entries()
    assert [one.name for one in entries] == sorted((*NAMES, NOTHING))
    first = entries[0]
    assert (first.model, first.method, first.level, first.nnz) == ("m", "dropout", 0.9, 0)
    assert {(one.kind, one.dataset) for one in entries} == {("weights", "dlmc")}
    assert entries[1].shape == (3, 4)
    monkeypatch.setattr(_archive, "_files", None)  # the second time from the index
    assert registry.get("dlmc").entries() == entries


def test_values_follow_from_seed_and_name(sample: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = find("dlmc/*random*")
    found = a.matrix()
    assert isinstance(found, CSR)
    assert (found.dtype, found.indices.dtype) == ("float32", np.uint16)
    np.testing.assert_array_equal(found.to_dense() != 0, [[0, 1, 0, 1], [0, 0, 0, 0], [1, 1, 1, 0]])
    monkeypatch.setattr(_archive, "unpack", None)  # unpacked once
    np.testing.assert_array_equal(found.data, a.matrix().data)
    assert (found.data != a.matrix(1).data).all()
    assert (found.data != b.matrix().data).all()
    assert find(f"dlmc/{NOTHING}")[0].matrix().nnz == 0


def test_a_tree_and_the_tarball_go_before_the_sample(sample: Path) -> None:
    whole = {f"dlmc/{name}.smtx": SMTX for name in (*NAMES, "m/l0/0.5/d")}
    tree = sample / "dlmc" / "dlmc" / "m" / "l0" / "0.5" / "only.smtx"
    tree.parent.mkdir(parents=True)
    tree.write_bytes(SMTX)
    assert [(one.name, one.matrix().nnz) for one in registry.get("dlmc").entries()] == [("m/l0/0.5/only", 5)]
    archive(sample / "dlmc" / "dlmc.tar.gz", whole, "w:gz")
    assert [one.name for one in registry.get("dlmc").entries()] == sorted((*NAMES, "m/l0/0.5/d"))
    assert find("dlmc/m/l0/0.5/d")[0].matrix().nnz == 5


def test_an_unknown_name_is_told_what_there_is(sample: Path) -> None:
    with pytest.raises(InvalidArgument, match=r"dlmc has no entry 'x'; it has 4, such as m/dropout/0.9/c, m/"):
        find("dlmc/x")
    with pytest.raises(InvalidArgument, match=r"data set 'dmlc' is not known; choose one of: .*dlmc"):
        find("dmlc")
    assert len(find("dlmc")) == 4


def test_the_files_of_the_benchmark(sample: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [label for _, label in dlmc_sample()] == sorted(NAMES)
    monkeypatch.setattr(_archive, "unpack", None)
    assert [label for _, label in dlmc_sample("*/0.9/*")] == sorted(NAMES[1:])
    assert [label for _, label in dlmc_sample("*/0.9/b.smtx")] == ["m/magnitude/0.9/b"]
    with pytest.raises(InvalidArgument, match="none of 4 matrices fits 'x'; they are called as m/"):
        dlmc_sample("x")


@pytest.mark.parametrize("name", ["../a.smtx", "/a.smtx", "b/../../a.smtx"])
def test_an_archive_that_leads_out_of_its_folder(name: str, tmp_path: Path) -> None:
    target = tmp_path / "cache" / "out"
    with pytest.raises(DamagedFile, match="leads out of the folder"):
        unpack(archive(tmp_path / "a.tar.xz", {"dlmc/m/p/0.5/a.smtx": SMTX, name: SMTX}), target)
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize("mode", ["w:xz", "w:gz"])
def test_an_archive_that_is_cut_off(mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZEROSKIP_CACHE_DIR", str(tmp_path / "cache"))
    noise = np.random.default_rng(0).bytes(50_000)
    whole = archive(tmp_path / "a.tar", {"a.smtx": SMTX + noise}, mode).read_bytes()
    for size in (0, 40, 25_000):
        (tmp_path / "b.tar").write_bytes(whole[:size])
        for call in (lambda: unpack(tmp_path / "b.tar", tmp_path / "out"), lambda: members(tmp_path / "b.tar")):
            with pytest.raises(DamagedFile, match=r"b\.tar: it cannot be unpacked"):
                call()
        assert not (tmp_path / "out").exists()


def test_a_member_without_header_is_named(tmp_path: Path) -> None:
    with pytest.raises(DamagedFile, match=r"a\.tar\.xz, m/x\.smtx, line 1: the header"):
        members(archive(tmp_path / "a.tar.xz", {"m/x.smtx": b"nothing of the kind\n"}))


@pytest.mark.parametrize(
    ("label", "level"), [("m/p/0.9/a.smtx", 0.9), ("m/p/2/a.smtx", None), ("p/0.9/a.smtx", None), ("a.smtx", None)]
)
def test_provenance(label: str, level: float | None) -> None:
    found = {"model": "m", "method": "p"} if level else {"model": None, "method": None}
    assert provenance(label) == {**found, "level": level}


def test_the_real_sample(data_dir: Path) -> None:
    dlmc = registry.get("dlmc")
    if (reason := dlmc.why_not()) is not None:
        pytest.skip(reason)
    entries = dlmc.entries()
    assert len(entries) >= 270
    assert {one.model for one in entries} == {"rn50", "transformer"}
    assert all(isinstance(one, Entry) and one.level is not None and one.shape is not None for one in entries)
    for one in entries[::90]:
        a = one.matrix()
        assert (a.shape, a.nnz) == (one.shape, one.nnz)
