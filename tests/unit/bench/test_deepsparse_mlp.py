"""`benchmarks/deepsparse_mlp.py`: its processes, its check and its rows, with a stand-in for DeepSparse."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "deepsparse_mlp.py"
STAND_IN = """
import numpy as np, onnx
from onnx import numpy_helper

class Engine:
    fraction_of_supported_ops = 1.0

    def __init__(self, path, batch_size, num_cores):
        print("an engine that talks on standard output")
        tensors = {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}
        self.layers = [(tensors[f"w{i}"], tensors[f"b{i}"]) for i in range(4)]
        self.batch = batch_size

    def run(self, inputs, val_inp=True):
        found = inputs[0]
        assert len(found) == self.batch
        for weight, bias in self.layers:
            found = np.maximum(found @ weight.T + bias * FACTOR, 0)
        return [found]
"""


def run(folder: Path, factor: str, *words: str) -> subprocess.CompletedProcess[str]:
    pytest.importorskip("onnx")
    (folder / "deepsparse.py").write_text(STAND_IN.replace("FACTOR", factor), encoding="utf-8")
    path = os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))
    command = [sys.executable, str(SCRIPT), "--deepsparse-python", sys.executable, "--features", "64", "--threads", "1"]
    command += ["--slice", "0.01", "--rounds", "2", "--batch", "1,3", "--sparsity", "0.9", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env={**os.environ, "PYTHONPATH": path})


def test_both_engines_take_turns_and_agree(tmp_path: Path) -> None:
    done = run(tmp_path, "1", "--json")
    assert done.returncode == 0, done.stderr
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    assert [(row["sparsity"], row["batch"]) for row in rows] == [(0.9, 1), (0.9, 3)]
    for row in rows:
        ours, theirs = row["zeroskip"], row["deepsparse"]
        assert row["ratio"] == pytest.approx(theirs["median_s"] / ours["median_s"])
        assert min(ours["calls"], theirs["calls"]) >= 6
        assert max(ours["error"], theirs["error"]) < 1e-5
        assert ours["how"].startswith("spmm_")
    assert "of 2 cells; its smallest ratio is" in done.stderr


def test_an_engine_that_is_wrong_ends_it(tmp_path: Path) -> None:
    done = run(tmp_path, "2")
    assert done.returncode == 1
    assert "deepsparse is wrong at batch 1" in done.stderr
