"""Activation traces: what is recorded against the outputs themselves, and what a file may not be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zeroskip import DamagedFile, InvalidArgument
from zeroskip.cli.main import main
from zeroskip.datasets import traces

torch = pytest.importorskip("torch")


def network() -> Any:
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Linear(6, 11), torch.nn.ReLU(), torch.nn.Linear(11, 5), torch.nn.Threshold(0.2, 0.0)
    )


def test_bits_are_those_of_the_outputs() -> None:
    model, batches = network(), [torch.randn(4, 6), torch.randn(2, 3, 6)]
    found = traces.record(model, batches)
    assert [(one.name, one.features) for one in found] == [("1", 11), ("3", 5)]
    for one, part in zip(found, (model[:2], model), strict=True):
        wanted = torch.cat([part(batch).reshape(-1, one.features) for batch in batches]) != 0
        np.testing.assert_array_equal(one.active(), wanted.numpy())
        pattern = one.structure()
        assert pattern.shape == (10, one.features)
        np.testing.assert_array_equal(np.diff(pattern.indptr), wanted.numpy().sum(1))
        numbers, active = one.statistics(), wanted.numpy()
        assert numbers["density"] == pytest.approx(active.mean())
        assert numbers["never_active"] == (~active.any(0)).sum()
        assert numbers["always_active"] == active.all(0).sum()
    assert not model[1]._forward_hooks


def test_layers_by_name_thresholds_images_and_named_inputs() -> None:
    model = torch.nn.Conv2d(3, 4, 1)
    image = torch.randn(2, 3, 5, 5)
    (found,) = traces.record(model, [{"input": image}], layers=[""], threshold=0.3)
    wanted = (model(image).abs() > 0.3).movedim(1, -1).reshape(-1, 4)
    np.testing.assert_array_equal(found.active(), wanted.numpy())


def test_what_cannot_be_recorded() -> None:
    with pytest.raises(InvalidArgument, match="no module that gives exact zeros"):
        traces.record(torch.nn.Linear(2, 2), [])
    with pytest.raises(InvalidArgument, match="no module like x"):
        traces.record(network(), [], layers=["x*"])
    with pytest.raises(InvalidArgument, match="layer '1' was never run"):
        traces.record(network(), [])
    with pytest.raises(InvalidArgument, match="threshold is -1"):
        traces.record(network(), [], threshold=-1)
    with pytest.raises(InvalidArgument, match="NaN in it"):
        traces.record(network(), [torch.full((1, 6), float("nan"))])


def test_files_come_back_and_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = traces.record(network(), [torch.randn(7, 6)])
    path = tmp_path / "a.npz"
    traces.save(path, found)
    for one, other in zip(found, traces.load(path), strict=True):
        assert (one.name, one.features) == (other.name, other.features)
        np.testing.assert_array_equal(one.bits, other.bits)
    assert main(["data", "show", str(path), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["layers"] == [one.statistics() for one in found]
    assert main(["data", "show", str(path)]) == 0
    assert "never active" in capsys.readouterr().out
    with pytest.raises(InvalidArgument, match="does not end in"):
        traces.save(tmp_path / "a.txt", found)


@pytest.mark.parametrize(
    "change",
    [
        {"zeroskip_trace": np.array(2)},
        {"names": np.array(["a", "b"])},
        {"names": np.array([1])},
        {"features": np.array([0])},
        {"features": np.array([17])},
        {"features": np.array([5.0])},
        {"bits_0": np.zeros((2, 1), np.int64)},
        {"bits_0": np.zeros(2, np.uint8)},
        {"bits_0": np.zeros((0, 1), np.uint8)},
    ],
)
def test_a_damaged_file_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    good: dict[str, Any] = {"zeroskip_trace": np.array(1), "names": np.array(["a"]), "features": np.array([5])}
    good["bits_0"] = np.zeros((2, 1), np.uint8)
    np.savez(tmp_path / "a.npz", **good)
    assert traces.load(tmp_path / "a.npz")[0].statistics()["never_active"] == 5
    np.savez(tmp_path / "a.npz", **(good | change))
    with pytest.raises(DamagedFile, match=r"a\.npz"):
        traces.load(tmp_path / "a.npz")
