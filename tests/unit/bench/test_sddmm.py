"""`zeroskip bench sddmm`: checked rows of masks, files and blocks, in both value types; what is refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zeroskip import InvalidArgument
from zeroskip.bench import schema, sddmm
from zeroskip.bench.operands import Problem
from zeroskip.bench.sddmm import SddmmSettings, bench_sddmm
from zeroskip.bench.stored import EntryProblem
from zeroskip.cli import main
from zeroskip.datasets.masks import Masks
from zeroskip.kernels import operations

QUICK = ("--budget", "0", "--rounds", "1")


def rows_of(**changes: Any) -> list[dict[str, Any]]:
    mask = EntryProblem(Masks().entry("bigbird", 48, 0.7), "float32", 0)
    asked: dict[str, Any] = {"sources": [mask], "depths": [5], "budget_s": 0.0, "rounds": 1}
    return list(bench_sddmm(SddmmSettings(**{**asked, **changes})))


def test_every_kernel_of_a_mask_has_a_row_that_was_held_to_the_bound() -> None:
    rows = rows_of(depths=[5, 16])
    assert {row["n"] for row in rows} == {5, 16}
    assert {row["role"] for row in rows} >= {"candidate", "peer"}
    for row in rows:
        schema.check_row(json.loads(json.dumps(row, allow_nan=False)))
        assert (row["op"], row["status"], row["dataset"]) == ("sddmm", "ok", "masks"), row["reason"]
        assert row["gflops"] == pytest.approx(2 * row["nnz"] * row["n"] / row["time_s"] / 1e9)


def test_bfloat16_is_ours_alone_and_rivals_get_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Sequence[Any]] = {}
    checked = sddmm._checked

    def spy(row: Any, kernel: Any, a: Any, operands: Any, reference: Any) -> Any:
        given[kernel.dtype] = operands
        return checked(row, kernel, a, operands, reference)

    monkeypatch.setattr(sddmm, "_checked", spy)
    rows = rows_of(dtype="bfloat16")
    assert {row["dtype"] for row in rows if row["role"] == "candidate"} == {"bfloat16"}
    assert {row["dtype"] for row in rows if row["role"] != "candidate"} == {"float32"}
    for narrow, wide in zip(given["bfloat16"], given["float32"], strict=True):
        np.testing.assert_array_equal(narrow.astype(np.uint32) << 16, wide.view(np.uint32))


def test_kernels_for_blocks_take_part_where_there_are_blocks() -> None:
    blocks = Problem((32, 48), 0.5, "block:8x8", "float32", 0)
    rows = rows_of(sources=[blocks])
    assert {row["format"] for row in rows if row["role"] == "candidate"} >= {"bsr", "csr"}
    assert all(row["status"] == "ok" for row in rows), [row["reason"] for row in rows]
    assert "bsr" not in {row["format"] for row in rows_of()}


def test_a_wrong_block_kernel_is_a_failed_row(monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = Problem((32, 48), 0.5, "block:8x8", "float32", 0)
    right = next(k for k in operations if k.op == "sddmm" and k.format == "bsr" and k.isa == "scalar")

    def off_by_one(pattern: Any, a: Any, b: Any, out: Any, values: Any, alpha: float) -> None:
        right.function(pattern, a, b, out, values, alpha)
        out += 1

    monkeypatch.setattr(sddmm, "select", lambda *_: [right, replace(right, function=off_by_one)])
    assert [row["status"] for row in rows_of(sources=[blocks])] == ["ok", "failed"]


def test_too_many_entries_to_check_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sddmm, "MOST_WORK", 10)
    with pytest.raises(InvalidArgument, match=r"bigbird/48/0\.7 at depth 5.*leave it out"):
        rows_of()


def test_the_command_writes_rows_and_shows_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "rows.jsonl"
    words = ["bench", "sddmm", "--mask", "bigbird/64/0.5,window/64/0.8", "--depth", "8", *QUICK]
    assert main([*words, "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "bigbird/64/0.5, 64x64, 50 % zeros" in shown
    assert "depth = 8" in shown
    assert "geometric means" in shown
    rows = schema.read_rows(out)
    assert {row["matrix"] for row in rows} == {"bigbird/64/0.5", "window/64/0.8"}
    assert main([*words, "--json", "--quiet"]) == 0
    assert json.loads(capsys.readouterr().out)["summary"]["ratios"][0]["op"] == "sddmm"


def test_the_command_takes_files_and_random_patterns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "layer.smtx"
    path.write_text("2, 3, 2\n0 1 2\n0 2\n")
    assert main(["bench", "sddmm", "--matrix", str(path), "--depth", "4", *QUICK]) == 0
    assert "layer.smtx, 2x3" in capsys.readouterr().out
    assert main(["bench", "sddmm", "--shape", "32x16", "--sparsity", "0.5", "--depth", "4", *QUICK]) == 0
    assert "32x16, 50 % zeros (unstructured)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--mask", "bigbird/512"], "is no mask; write KIND/LENGTH/SPARSITY"),
        (["--mask", "magic/512/0.5"], "'magic' is not known"),
        (["--mask", "bigbird/512/1.5"], "outside"),
        (["--mask", "magic/*"], "fits none of the 84"),
        (["--mask", "bigbird/512/0.5", "--shape", "4x4"], "--mask does not go with --shape"),
        (["--kernels", "magic"], "kernel 'magic' is not known"),
        (["--peers", "magic"], "peer 'magic' is not known"),
    ],
)
def test_what_cannot_be_is_refused(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "sddmm", *words]) == (1 if words[0] in ("--kernels", "--peers") else 2)
    assert message in capsys.readouterr().err
