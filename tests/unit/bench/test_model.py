"""`zeroskip bench model` in parts: settings, rows, fronts and verdicts, blocks dropped, the page."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zeroskip import InvalidArgument
from zeroskip.bench.model import depth, fronts, runner
from zeroskip.bench.model.entries import Entry
from zeroskip.bench.model.page import render
from zeroskip.bench.model.rows import make_rows
from zeroskip.bench.model.schema import check_row
from zeroskip.bench.model.settings import BASE, ModelSettings
from zeroskip.bench.model.tables import terminal

HEADER = {
    "model": "small",
    "parameters": 1000,
    "machine": {"cpu": "a processor", "cores": 2, "isa": "avx2", "memory_bytes": 2**34, "system": "Linux"},
    "versions": {"zeroskip": "1", "python": "3"},
    "commit": None,
    "when": "2026-01-01T00:00:00+00:00",
}
SETTINGS = ModelSettings("small", batches=(1, 4))


def entry(key: str, sparsity: float = 0.0, **fields: Any) -> Entry:
    engine, values = key.split(":")[:2]
    return Entry(key, key.replace(":", ", "), engine, values, "somehow", sparsity, 4, disk_bytes=2000, **fields)


def turn(key: str, step_s: float, kl: float, number: int = 0, **fields: Any) -> dict[str, Any]:
    quality = {"perplexity": 10 + kl, "kl": kl, "top1": 0.9, "predictions": 511}
    return {
        "row": key,
        "round": number,
        "reason": None,
        "version": "1.0",
        "load_s": 1.0,
        "first_s": [10 * step_s, 30 * step_s, 20 * step_s],
        "decode_s": {"1": [step_s] * 3, "4": [2 * step_s] * 3},
        "resident_bytes": 5,
        "peak_bytes": 7,
        **({"quality": quality} if number == 0 else {}),
        **fields,
    }


def rows_of(*found: tuple[str, float, float, float]) -> list[dict[str, Any]]:
    """Rows of (key, sparsity, seconds of a step, divergence)."""
    entries = [entry(key, sparsity) for key, sparsity, _, _ in found]
    return make_rows(entries, [turn(key, step, kl) for key, _, step, kl in found], SETTINGS, HEADER)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"engines": ("tensorrt",)}, "tensorrt"),
        ({"values": ()}, "nothing"),
        ({"values": ("int8/x",)}, "int8/x"),
        ({"values": ("int8/7",)}, "group is 7"),
        ({"sparsity": (1.5,)}, "1.5"),
        ({"windows": 0}, "windows"),
        ({"batches": ()}, "batch"),
        ({"compiled": (Path("a/x"), Path("b/x"))}, "'x'"),
    ],
)
def test_settings_are_checked(change: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidArgument, match=re.escape(named)):
        ModelSettings("small", **change)


def test_a_row_has_medians_over_rounds_and_ratios_inside_each() -> None:
    turns = [turn(BASE, 0.4, 0.0), turn(BASE, 0.8, 0.0, 1), turn(BASE, 0.4, 0.0, 2)]
    turns += [turn("zeroskip:int4", 0.1, 0.2), turn("zeroskip:int4", 0.1, 0.2, 1)]
    base, ours = make_rows([entry(BASE), entry("zeroskip:int4")], turns, SETTINGS, HEADER)
    assert base["decode_tokens_per_s"] == {"1": pytest.approx(2.5), "4": pytest.approx(5.0)}
    assert base["ratio"] == {"first": 1.0, "1": 1.0, "4": 1.0}
    assert ours["ratio"] == {"first": pytest.approx(6.0), "1": pytest.approx(6.0), "4": pytest.approx(6.0)}
    assert (ours["rounds"], ours["first_token_s"], ours["kl"]) == (2, pytest.approx(2.0), 0.2)
    assert ours["bits_per_weight"] == 16.0


def test_rows_say_why_they_have_no_figures() -> None:
    missing = entry("openvino:int4").without("missing", "not installed: pip install openvino")
    wrong = turn("zeroskip:int8", 1.0, 0.1, reason="wrong result: decoding agrees ... in 3% of its tokens")
    rows = make_rows([missing, entry("zeroskip:int8"), entry("torch:bfloat16")], [wrong], SETTINGS, HEADER)
    assert [row["status"] for row in rows] == ["missing", "failed", "failed"]
    assert "ended before" in rows[2]["reason"]
    text = terminal(rows)
    assert "pip install openvino" in text
    assert "3% of its tokens" in text
    with pytest.raises(InvalidArgument, match="say why"):
        check_row({**rows[0], "reason": None})


def test_the_front_is_what_nothing_else_beats_in_both() -> None:
    rows = rows_of(
        (BASE, 0, 1.0, 0.0),
        ("a:int8", 0, 0.5, 0.1),
        ("b:int8", 0, 0.6, 0.2),
        ("zeroskip:int4:sparse-0.5", 0.5, 0.2, 0.9),
    )
    decode = fronts.measures(rows)[0]
    assert [row["row"] for row in fronts.front(rows, decode)] == [BASE, "a:int8", "zeroskip:int4:sparse-0.5"]
    won = {verdict["title"]: verdict["won"] for verdict in fronts.verdicts(rows)}
    assert won == {
        "Decoding one sequence": True,
        "Decoding 4 sequences at a time": True,
        "Time to the first token": True,
        "Size": False,
    }


def test_who_beats_the_best_sparse_row_is_named() -> None:
    rows = rows_of((BASE, 0, 1.0, 0.0), ("a:int4", 0, 0.2, 0.3), ("zeroskip:int8:sparse-0.5", 0.5, 0.3, 0.4))
    verdict = fronts.verdicts(rows)[0]
    assert not verdict["won"]
    assert verdict["text"].startswith("beaten: zeroskip, int8, sparse-0.5 (3.33 tokens/s, perplexity 10.4,")
    assert "by a, int4 (5 tokens/s" in verdict["text"]
    assert fronts.verdicts(rows[:2]) == []


def test_a_lead_within_noise_is_none() -> None:
    rows = rows_of((BASE, 0, 1.0, 0.0), ("a:int8", 0, 0.300, 0.1), ("zeroskip:int8:sparse-0.5", 0.5, 0.298, 0.4))
    assert not any(verdict["won"] for verdict in fronts.verdicts(rows))
    ahead = rows_of((BASE, 0, 1.0, 0.0), ("a:int8", 0, 0.300, 0.1), ("zeroskip:int8:sparse-0.5", 0.5, 0.280, 0.4))
    assert fronts.verdicts(ahead)[0]["won"]


def test_the_page_stands_alone_and_tells_losses() -> None:
    pytest.importorskip("matplotlib")
    rows = rows_of((BASE, 0, 1.0, 0.0), ("a:int4", 0, 0.2, 0.3), ("zeroskip:int8:sparse-0.5", 0.5, 0.3, 0.4))
    doc = {**HEADER, "command": "zeroskip bench model small", "text": "t", "windows": 8, "window": 512, "rows": rows}
    page = render(doc)
    assert "beaten: zeroskip" in page
    assert page.count("<svg") == len(fronts.measures(rows))
    assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//""", page)


@pytest.mark.parametrize(("answer", "named"), [({"kl": float("nan")}, "kl"), ({"perplexity": float("inf")}, "perp")])
def test_figures_of_quality_are_finite(answer: dict[str, float], named: str) -> None:
    with pytest.raises(runner.WorkerFailed, match=named):
        runner._finite(answer)


@pytest.fixture(scope="module")
def llama() -> Any:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from zeroskip.models import LoadedModel

    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        hidden_size=32,
        num_hidden_layers=5,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=24,
        intermediate_size=64,
    )
    model = transformers.LlamaForCausalLM(config).eval()
    return LoadedModel(model, None, "decoder", "llama", "small")


def test_blocks_of_the_least_influence_are_dropped(llama: Any) -> None:
    import torch

    with torch.no_grad():
        for name in ("self_attn.o_proj", "mlp.down_proj"):
            llama.model.model.layers[2].get_submodule(name).weight.zero_()  # changes nothing
    windows = [np.arange(12, dtype=np.int64) % 24]
    found = depth.influences(llama, windows)
    assert len(found) == 5
    assert found[2] == pytest.approx(0, abs=1e-6)
    assert min(found[:2]) > 1e-4
    smaller = depth.without_blocks(llama, 4, found)
    assert smaller.model.config.num_hidden_layers == 4
    assert [block.self_attn.layer_idx for block in smaller.model.model.layers] == [0, 1, 2, 3]
    ids = torch.from_numpy(windows[0])[None]
    with torch.inference_mode():
        whole, part = llama.model(ids).logits, smaller.model(ids).logits
    assert torch.allclose(whole, part, atol=1e-5)
    for keep in (1, 5):
        with pytest.raises(InvalidArgument, match=f"depth has {keep}"):
            depth.without_blocks(llama, keep, found)
