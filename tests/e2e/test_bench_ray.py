"""A suite over a local Ray of two workers gives the rows that it gives without."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from zeroskip.bench import run, schema

SUITE = """
title = "Two masks and two graphs"

[[set]]
dataset = "masks"
op = "sddmm"
entries = ["*/512/0.9"]
limit = 2
n = [8, 16]
peers = ["none"]
seconds = 0.02

[[set]]
dataset = "graphs"
entries = ["power_law/cora", "power_law/citeseer"]
limit = 2
n = [8]
peers = ["numpy"]
seconds = 0.02
"""


@pytest.mark.slow
def test_rows_are_the_same_and_name_their_node(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install ray")
    suite = tmp_path / "small.toml"
    suite.write_text(SUITE)
    # In processes of their own: Ray starts others, leaves files in the home folder, and `bench run` binds its process.
    env = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "HOME": str(tmp_path)}
    command = [sys.executable, "-m", "zeroskip.cli", "bench", "run", str(suite), "--threads", "1"]
    ways = {"spread": ["--ray"], "alone": []}
    for folder, words in ways.items():
        found = subprocess.run(
            [*command, *words, "-o", str(tmp_path / folder)], capture_output=True, text=True, timeout=300, env=env
        )
        assert found.returncode == 0, found.stderr[-2000:]
        assert "6 of 6 cells" in found.stdout
    names = ("op", "dataset", "matrix", "n", "kernel", "layout", "nnz", "status", "error_over_bound")
    spread, alone = (schema.read_rows(tmp_path / folder / run.ROWS) for folder in ways)
    same = [sorted([[row[name] for name in names] for row in rows], key=str) for rows in (spread, alone)]
    assert same[0] == same[1]
    assert {row["node"] for row in spread} == {platform.node()}
    assert {row["node"] for row in alone} == {None}
    assert {row["threads"] for row in spread} == {1}
    again = subprocess.run([*command, "--ray", "-o", str(tmp_path / "spread")], capture_output=True, text=True, env=env)
    assert "0 of them now" in again.stdout
