"""Data sets that are read from files: the real ones where they are, damaged ones, and where files are looked for."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zeroskip import DamagedFile, MissingDependency
from zeroskip.datasets import KINDS, Dataset, _files, find, registry
from zeroskip.formats import CSR

# Rows and entries as their authors, or the survey's table 4, give them.
KNOWN = {
    "planetoid/cora": (2708, 10556),
    "planetoid/pubmed": (19717, 88648),
    "snap/ego-facebook": (4039, 176468),
    "suitesparse/1138_bus": (1138, 4054),
    "suitesparse/west0067": (67, 294),
    "swin/layers.0.blocks.0.attn.proj": (96, 4608),
    "tudataset/PROTEINS": (43471, 162088),
    "tudataset/MUTAG": (3371, 7442),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder with nothing in it."""
    monkeypatch.setenv("ZEROSKIP_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("ZEROSKIP_CACHE_DIR", str(tmp_path / "cache"))
    for name in ("graphs", "matrices", "models", "dlmc"):
        (tmp_path / "data" / name).mkdir(parents=True)
    return tmp_path / "data"


def test_every_data_set_says_what_it_is() -> None:
    assert {"dlmc", "mediapipe", "ogb", "planetoid", "snap", "suitesparse", "swin", "tudataset"} <= set(
        registry.names()
    )
    assert registry.unavailable == {}
    for one in registry:
        assert isinstance(one, Dataset)
        assert one.name in registry.names()
        assert one.kind in KINDS
        assert one.title
        assert one.licence
        assert one.source is None or one.source.startswith("https://")
        assert all(file.url.startswith("http") and not Path(file.path).is_absolute() for file in one.files)
        assert len({file.entry for file in one.files}) == len(one.files)


@pytest.mark.parametrize("name", KNOWN)
def test_the_real_ones(name: str, data_dir: Path) -> None:
    try:
        (entry,) = find(name)
    except MissingDependency as error:
        pytest.skip(str(error))
    a = entry.matrix()
    assert isinstance(a, CSR)
    assert (a.shape[0], a.nnz) == KNOWN[name]


def test_production_weights_keep_their_values(data_dir: Path) -> None:
    mediapipe = registry.get("mediapipe")
    if (reason := mediapipe.why_not()) is not None:
        pytest.skip(reason)
    entries = mediapipe.entries()
    assert len(entries) == 38
    a = entries[0].matrix()
    np.testing.assert_array_equal(a.data, a.data.astype(np.float16))
    np.testing.assert_array_equal(a.data, entries[0].matrix(7).data)
    assert a.sparsity == pytest.approx(0.75, abs=0.01)


def test_what_is_not_here_is_told_with_a_way_to_mend_it(folder: Path) -> None:
    for name in ("dlmc", "mediapipe", "ogb", "planetoid", "snap", "suitesparse", "swin", "tudataset"):
        dataset = registry.get(name)
        reason = dataset.why_not()
        assert reason is not None
        assert (f"zeroskip data get {name}" in reason) == bool(dataset.files)
        assert "ZEROSKIP_DATA_DIR" in reason or dataset.files
        with pytest.raises(MissingDependency, match=f"^{name}: .* is not in "):
            dataset.entries()


def test_files_of_the_cache_folder_count_as_well(folder: Path, tmp_path: Path) -> None:
    own = tmp_path / "cache" / "data" / "graphs"
    own.mkdir(parents=True)
    (own / "roadNet-CA.txt.gz").write_bytes(b"")
    (folder / "graphs" / "wiki-Talk.txt").write_text("# a comment\n1\t2\n2\t5\n")
    assert [one.name for one in registry.get("snap").entries()] == ["roadNet-CA", "wiki-Talk"]
    assert find("snap/wiki-Talk")[0].matrix().indptr.tolist() == [0, 1, 2, 2]
    with pytest.raises(DamagedFile, match=r"roadNet-CA\.txt\.gz"):
        find("snap/roadNet-CA")[0].matrix()


def test_downloads_go_where_they_can_be_written(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _files.download_folder() == folder
    monkeypatch.setattr(_files.os, "access", lambda *_: False)
    assert _files.download_folder() == tmp_path / "cache" / "data"


def test_a_tarball_of_suitesparse(folder: Path) -> None:
    text = b"%%MatrixMarket matrix coordinate real general\n2 2 1\n2 1 5\n"
    for name, inside in (("good", "good/good.mtx"), ("bad", "other.mtx")):
        with tarfile.open(folder / "matrices" / f"{name}.tar.gz", "w:gz") as out:
            info = tarfile.TarInfo(inside)
            info.size = len(text)
            out.addfile(info, io.BytesIO(text))
    (folder / "matrices" / "cut.tar.gz").write_bytes((folder / "matrices" / "good.tar.gz").read_bytes()[:60])
    assert find("suitesparse/good")[0].matrix().to_dense().tolist() == [[0, 0], [5, 0]]
    for name in ("bad", "cut"):
        with pytest.raises(DamagedFile, match=rf"{name}\.tar\.gz: it is no MatrixMarket file"):
            find(f"suitesparse/{name}")[0].matrix()


GRAPH: dict[str, Any] = {"adj_indptr": np.array([0, 1, 2]), "adj_indices": np.array([1, 0])}
FACEBOOK: dict[str, Any] = {"src": np.array([0, 1]), "dst": np.array([1, 0]), "num_nodes": np.array(2)}


@pytest.mark.parametrize(
    ("file", "good", "change"),
    [
        ("planetoid_x.npz", GRAPH, {"adj_indices": np.array([1, 2])}),
        ("planetoid_x.npz", GRAPH, {"adj_indices": np.array([1, -1])}),
        ("planetoid_x.npz", GRAPH, {"adj_indptr": np.array([0, 2, 1])}),
        ("planetoid_x.npz", GRAPH, {"adj_indptr": np.array([0, 1, 3])}),
        ("planetoid_x.npz", GRAPH, {"adj_indptr": np.array([0.0, 1, 2])}),
        ("planetoid_x.npz", GRAPH, {"adj_indptr": np.array(2)}),
        ("planetoid_x.npz", GRAPH, {"adj_indptr": np.array([0, 2, 2]), "adj_indices": np.array([1, 1])}),
        ("snap_ego_facebook.npz", FACEBOOK, {"src": np.array([0, 2])}),
        ("snap_ego_facebook.npz", FACEBOOK, {"src": np.array([0, -1])}),
        ("snap_ego_facebook.npz", FACEBOOK, {"src": np.array([0])}),
        ("snap_ego_facebook.npz", FACEBOOK, {"src": np.array([1, 1]), "dst": np.array([0, 0])}),
        ("snap_ego_facebook.npz", FACEBOOK, {"num_nodes": np.array([2, 3])}),
    ],
)
def test_damaged_arrays_are_refused(file: str, good: dict[str, Any], change: dict[str, Any], folder: Path) -> None:
    name = "planetoid/x" if file.startswith("planetoid") else "snap/ego-facebook"
    np.savez(folder / "graphs" / file, **good)
    assert find(name)[0].matrix().to_dense().astype(bool).tolist() == [[False, True], [True, False]]
    np.savez(folder / "graphs" / file, **(good | change))
    with pytest.raises(DamagedFile, match=file):
        find(name)[0].matrix()


def test_a_weight_that_is_none(folder: Path) -> None:
    np.savez(
        folder / "models" / "mediapipe_pose_detection_decoded.npz", a=np.zeros((2, 3)), b=np.full((1, 1, 1, 2), np.nan)
    )
    for entry in registry.get("mediapipe").entries():
        with pytest.raises(DamagedFile, match="no such weight"):
            entry.matrix()
