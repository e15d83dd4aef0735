"""Results of a demo, as it would write them, without running one."""

from __future__ import annotations

import math
from typing import Any

import pytest

MACHINE = {
    "cpu": "AMD EPYC",
    "arch": "x86_64",
    "cores": 2,
    "isas": ["scalar", "avx2"],
    "isa": "avx2",
    "l1d_bytes": 32768,
    "l2_bytes": 524288,
    "l3_bytes": 33554432,
    "memory_bytes": 25_000_000_000,
    "system": "Linux 6.1",
}


def _engine(key: str, label: str, rate: float, how: str) -> dict[str, Any]:
    return {
        "key": key,
        "label": label,
        "status": "ok",
        "how": how,
        "reason": None,
        "rate": rate,
        "rate_low": rate * 0.93,
        "rate_high": rate * 1.04,
        "seconds": 320 / rate,
        "samples": 5,
    }


def _missing(key: str, label: str, reason: str) -> dict[str, Any]:
    return {"key": key, "label": label, "status": "missing", "how": "", "reason": reason}


def _sizes(*, full: int, on_disk: int, dense: int, sparse: int) -> dict[str, Any]:
    torch = {"key": "torch", "label": "dense float32", "bytes": full}
    ours = {"key": "zeroskip_sparse", "label": "zeroskip, sparse"}
    compiled_dense = {"key": "zeroskip_dense", "label": "zeroskip, dense", "bytes": dense}
    return {"disk": [torch, {**ours, "bytes": on_disk}], "memory": [torch, compiled_dense, {**ours, "bytes": sparse}]}


def _layers(blocks: int, names: dict[str, tuple[int, int]], sizes: tuple[int, ...]) -> list[dict[str, Any]]:
    found = []
    for block in range(blocks):
        for place, (name, (rows, cols)) in enumerate(names.items()):
            wave = 1 + 0.12 * math.sin(block * 1.7 + place)
            choices = []
            for n in sizes:
                dense = rows * cols * n * 1.1e-11 * wave + 2e-6
                stays = block == 2 and place == 3
                choices.append(
                    {
                        "n": n,
                        "kernel": "spmm_dense_f32_avx2" if stays else "spmm_csr_f32_avx2",
                        "time_s": dense * (1.0 if stays else 0.52),
                        "dense_kernel": "spmm_dense_f32_avx2",
                        "dense_time_s": dense,
                        "speedup": 1.0 if stays else 1.92,
                        "reason": "dense: the best sparse kernel, csr, is 0.91x dense" if stays else "csr 1.92x dense",
                    }
                )
            found.append(
                {
                    "name": f"encoder.layer.{block}.{name}",
                    "shape": [rows, cols],
                    "sparsity": 0.6 + 0.0001 * place,
                    "format": "csr",
                    "values": "float32",
                    "nbytes": rows * cols * 2,
                    "choices": choices,
                }
            )
    return found


def _document(kind: str, model: dict[str, Any], rest: dict[str, Any]) -> dict[str, Any]:
    from zeroskip.bench.demo.verdict import verdicts

    doc: dict[str, Any] = {
        "schema": "zeroskip.demo",
        "schema_version": 1,
        "command": "zeroskip demo --model smollm2" if kind == "decoder" else "zeroskip demo",
        "when": "2026-01-01T12:00:00+00:00",
        "settings": {},
        "threads": 2,
        "seed": 0,
        "machine": MACHINE,
        "versions": {"python": "3.11.7", "zeroskip": "0.1.0", "torch": "2.13.0", "numpy": "2.4", "onnxruntime": None},
        "commit": "0123456789ab",
        "model": {"kind": kind, **model},
        "texts": "pydoc (the documentation in this Python): even paragraphs calibrate, odd ones are measured",
        "pruning": {
            "method": "sparsegpt",
            "sparsity": 0.6,
            "achieved": 0.6,
            "pattern": "unstructured",
            "refit": "block",
            "samples": 384,
            "tokens": 21000,
            "seconds": 31.0,
            "of_all": 0.28,
        },
        "compile": {"seconds": 9.3, "load_seconds": 0.21, "values": "float32", "notes": []},
        "checks": [
            {
                "what": "compiled against torch, same pruned weights",
                "value": 0.9999999,
                "limit": 0.99999,
                "passed": True,
                "text": "smallest cosine of 32 embeddings is 0.9999999, at least 0.99999 is asked",
            }
        ],
        **rest,
    }
    doc["verdict"] = [item._asdict() for item in verdicts(doc)]
    return doc


def make_encoder_document() -> dict[str, Any]:
    names = {
        "attention.self.query": (384, 384),
        "attention.self.key": (384, 384),
        "attention.self.value": (384, 384),
        "attention.output.dense": (384, 384),
        "intermediate.dense": (1536, 384),
        "output.dense": (384, 1536),
    }
    values = [1 - 0.35 * (0.5 + 0.5 * math.sin(place * 1.234)) ** 3 * (0.2 + (place % 7) / 9) for place in range(320)]
    mean = sum(values) / len(values)
    engines = [
        _engine("torch", "torch", 61.0, "dense, padded batches sorted by length"),
        _engine("onnxruntime", "ONNX Runtime", 83.0, "dense, graph optimisations of the session"),
        _engine("zeroskip_dense", "zeroskip, dense", 88.0, "the dense model, compiled"),
        _engine("zeroskip_sparse", "zeroskip, sparse", 131.0, "the pruned model, compiled"),
    ]
    return _document(
        "encoder",
        {"name": "minilm", "family": "bert", "parameters": 22713216, "linear_parameters": 10616832, "notes": []},
        {
            "speeds": [
                {
                    "key": "embed",
                    "title": "Embedding",
                    "unit": "sentences/s",
                    "what": "320 paragraphs, tokenising included, in batches of up to 32",
                    "engines": engines,
                }
            ],
            "sizes": _sizes(full=90852864, on_disk=66900000, dense=91000000, sparse=73900000),
            "quality": {
                "cosine": {"mean": mean, "p10": sorted(values)[32], "min": min(values), "values": values},
                "neighbours": {"k": 10, "kept": 0.78},
                "rank_correlation": 0.981,
                "texts": 320,
                "examples": [{"text": "Lists are mutable.", "dense": "Tuples are not.", "sparse": "Tuples are not."}],
            },
            "quality_line": "cosine to dense 0.93",
            "samples": [],
            "layers": _layers(6, names, (1, 16, 256)),
        },
    )


def make_decoder_document(blocks: int = 30) -> dict[str, Any]:
    names = {
        "q_proj": (576, 576),
        "k_proj": (192, 576),
        "v_proj": (192, 576),
        "o_proj": (576, 576),
        "gate_proj": (1536, 576),
        "up_proj": (1536, 576),
        "down_proj": (576, 1536),
    }
    speeds = []
    for key, title, rates in (("prefill", "Prefill", (560.0, 900.0)), ("decode", "Decode", (20.0, 61.0))):
        engines = [
            _engine("torch", "torch", rates[0], "dense float32, a bare greedy loop"),
            _missing("onnxruntime", "ONNX Runtime", "not compared"),
            _engine("zeroskip_sparse", "zeroskip, sparse", rates[1], "the pruned model, compiled"),
        ]
        engines[0]["first_token_s"] = 0.9
        speeds.append(
            {"key": key, "title": title, "unit": "tokens/s", "what": "a prompt of 512 tokens", "engines": engines}
        )
    return _document(
        "decoder",
        {
            "name": "smollm2",
            "family": "llama",
            "parameters": 134515008,
            "linear_parameters": 106168320,
            "notes": ["A note."],
        },
        {
            "speeds": speeds,
            "sizes": _sizes(full=538060032, on_disk=210000000, dense=330000000, sparse=238000000),
            "quality": {
                "perplexity": {"dense": 25.6, "sparse": 37.5},
                "kl": 0.52,
                "top1": 0.63,
                "windows": 10,
                "predictions": 5110,
            },
            "quality_line": "perplexity 25.6 dense, 37.5 sparse",
            "samples": [{"prompt": "Once <upon> a time", "dense": "was a cat", "sparse": "was a dog & a cat"}],
            "layers": _layers(blocks, names, (1, 16, 256)),
        },
    )


@pytest.fixture
def encoder_document() -> dict[str, Any]:
    return make_encoder_document()


@pytest.fixture
def decoder_document() -> dict[str, Any]:
    return make_decoder_document(blocks=4)
