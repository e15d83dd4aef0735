"""The path of the demo: load, prune, compile, save, load again, check, measure, write the page."""

from __future__ import annotations

import copy
import datetime
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ... import models, runtime
from ..._errors import InvalidArgument
from ...models import LoadedModel
from ...runtime import CompiledModel
from .. import machine
from ..saved import as_saved
from ..webpage import write_text
from . import decoder, encoder
from .texts import Texts, demo_texts
from .verdict import verdicts

SCHEMA, VERSION = "zeroskip.demo", 1
Progress = Callable[[str, int, int], None]
Say = Callable[[str], None]
DEFAULT_SPARSITY = {"encoder": 0.6, "decoder": 0.5}
PAGE, RESULTS = "report.html", "results.json"


@dataclass(frozen=True)
class DemoSettings:
    """What `zeroskip demo` was asked for.

    Args:
        model: A short name, folder, hub id or GGUF file.
        out: Folder for the pruned and the compiled model, the page and the results.
        sparsity: None for 0.6 (encoders) or 0.5 (decoders).
        values, activations: Value type of the compiled weights, and what x may be rounded to; None for what `compile`
            takes by default.
        calibration, text: Files or known names; None for the documentation inside this Python.
        quick: Fewer texts and rounds: for a first look, not for figures to report.
        command: What was typed, for the page.
    """

    model: str
    out: Path
    sparsity: float | None = None
    method: str = "sparsegpt"
    pattern: str = "unstructured"
    values: str | None = None
    activations: str | None = None
    calibration: str | None = None
    text: str | None = None
    threads: int | None = None
    seed: int = 0
    quick: bool = False
    command: str = "zeroskip demo"


@dataclass(frozen=True)
class _Run:
    """The models that are compared, and what they are measured on."""

    settings: DemoSettings
    dense: LoadedModel
    pruned: LoadedModel
    compiled_dense: CompiledModel
    compiled: CompiledModel
    texts: Texts
    threads: int
    progress: Progress

    def reference(self) -> LoadedModel:
        """What torch runs in the check."""
        return as_saved(self.pruned, self.settings.out / "compiled")


def run_demo(settings: DemoSettings, *, say: Say, progress: Progress) -> dict[str, Any]:
    """Do it all.

    Args:
        settings: What to do.
        say: Called with a line now and then, for people.
        progress: Called with (stage, done, total).
    Returns:
        The results, as in results.json; docs/demo.md describes them.
    """
    threads = machine.use_threads(settings.threads)
    say(f"zeroskip demo on {machine.describe(threads)}, seed {settings.seed}")
    started = time.perf_counter()
    dense = models.load(settings.model)
    if dense.kind not in DEFAULT_SPARSITY:
        raise InvalidArgument(f"demo: {dense.name} is neither an encoder nor a decoder; use prune and compile instead.")
    machine.use_threads(threads)  # torch is there now and gets the same number
    settings.out.mkdir(parents=True, exist_ok=True)
    count = 48 if settings.quick else 320
    texts = demo_texts(settings.calibration, settings.text, count=count)
    say(f"{dense.name}: {dense.kind}, {parameters(dense) / 1e6:.1f} million parameters; text: {texts.note}")
    doc = _header(settings, dense, texts, threads)
    pruned = prune(settings, dense, texts, doc, say=say, progress=progress)
    compiled = compile_and_load(settings, pruned, doc, say=say, progress=progress)
    compiled_dense = compiled_model(dense, settings, budget_s=10.0, progress=_named(progress, "compile dense"))
    doc["sizes"] = sizes(settings.out, dense, compiled_dense, compiled)
    run = _Run(settings, dense, pruned, compiled_dense, compiled, texts, threads, progress)
    doc.update(_encoder(run) if dense.kind == "encoder" else _decoder(run))
    doc["layers"] = compiled.report(json=True)
    doc["verdict"] = [verdict._asdict() for verdict in verdicts(doc)]
    doc["total_s"] = time.perf_counter() - started
    write_text(settings.out / RESULTS, json.dumps(doc, indent=1, allow_nan=False) + "\n")
    return doc


def _header(settings: DemoSettings, dense: LoadedModel, texts: Texts, threads: int) -> dict[str, Any]:
    linear = sum(layer.shape[0] * layer.shape[1] for layer in models.prunable(dense.model))
    return {
        "schema": SCHEMA,
        "schema_version": VERSION,
        "command": settings.command,
        "when": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "settings": {**asdict(settings), "out": str(settings.out)},
        "threads": threads,
        "seed": settings.seed,
        "machine": machine.machine(),
        "versions": machine.versions(),
        "commit": machine.commit(),
        "model": {
            "name": dense.name,
            "kind": dense.kind,
            "family": dense.family,
            "parameters": parameters(dense),
            "linear_parameters": linear,
            "notes": _notes(settings, dense),
        },
        "texts": texts.note,
    }


def _notes(settings: DemoSettings, dense: LoadedModel) -> list[str]:
    notes = []
    if dense.extra.get("gguf_file"):
        notes.append(
            "The dense model was read from a quantised GGUF file, whose weights had few bits already: its perplexity "
            "is a little above the original's, and so is the sparse model's."
        )
    if settings.quick:
        notes.append("A quick run: few texts and rounds, so that speeds and quality are rough.")
    if settings.calibration is None and settings.text is None:
        notes.append(
            "Calibrated and measured on paragraphs of one source. On another kind of text quality may be lower: "
            "pass --text, and --calibration from your own domain."
        )
    return notes


def parameters(loaded: LoadedModel) -> int:
    """Parameters of the model, shared ones once."""
    return sum(parameter.numel() for parameter in loaded.model.parameters())


def prune(
    settings: DemoSettings, dense: LoadedModel, texts: Texts, doc: dict[str, Any], *, say: Say, progress: Progress
) -> LoadedModel:
    """Prune a copy of the model and save it as an ordinary folder."""
    calibration = settings.out / "calibration.txt"
    write_text(calibration, "\n".join(texts.calibration) + "\n")
    pruned = LoadedModel(
        copy.deepcopy(dense.model), dense.tokenizer, dense.kind, dense.family, dense.name, dict(dense.extra)
    )
    implied = None if settings.pattern != "unstructured" else DEFAULT_SPARSITY[dense.kind]
    report = models.prune(
        pruned,
        method=settings.method,
        sparsity=implied if settings.sparsity is None else settings.sparsity,
        pattern=settings.pattern,
        calibration=calibration,
        samples=(32 if dense.kind == "encoder" else 4) if settings.quick else None,
        seed=settings.seed,
        progress=progress,
    )
    models.save_pruned(pruned, settings.out / "pruned", report)
    doc["pruning"] = {
        "method": report.method,
        "sparsity": report.sparsity,
        "achieved": report.achieved,
        "pattern": report.pattern,
        "refit": report.refit,
        "samples": report.samples,
        "tokens": report.tokens,
        "seconds": report.time_s,
        "of_all": report.achieved * doc["model"]["linear_parameters"] / doc["model"]["parameters"],
    }
    say(f"pruned {len(report.layers)} layers to {report.achieved:.3f} with {report.method} in {report.time_s:.0f} s")
    return pruned


def compile_and_load(
    settings: DemoSettings, pruned: LoadedModel, doc: dict[str, Any], *, say: Say, progress: Progress
) -> CompiledModel:
    """Compile the pruned model, save it, and load what was saved: that is what a user runs."""
    start = time.perf_counter()
    made = compiled_model(pruned, settings, budget_s=40.0, progress=_named(progress, "compile"))
    spent = time.perf_counter() - start
    made.save(settings.out / "compiled", overwrite=True)
    start = time.perf_counter()
    loaded = runtime.load(settings.out / "compiled")
    doc["compile"] = {
        "seconds": spent,
        "load_seconds": time.perf_counter() - start,
        "values": loaded.values,
        "notes": list(loaded.notes),
    }
    say(f"compiled in {spent:.1f} s ({loaded.values} values), loaded in {doc['compile']['load_seconds']:.2f} s")
    return loaded


def compiled_model(
    loaded: LoadedModel, settings: DemoSettings, *, budget_s: float, progress: Progress
) -> CompiledModel:
    """Compile a model of a known family."""
    made = runtime.compile(
        loaded, values=settings.values, activations=settings.activations, budget_s=budget_s, progress=progress
    )
    if not isinstance(made, CompiledModel):
        raise InvalidArgument(f"demo: {loaded.name} is of no known family; use prune and compile instead.")
    return made


def _named(progress: Progress, name: str) -> Progress:
    return lambda stage, done, total: progress(f"{name}: {stage}", done, total)


def _encoder(run: _Run) -> dict[str, Any]:
    quick, lines = run.settings.quick, run.texts.evaluation
    checks = [encoder.check(run.compiled, run.reference(), lines[:32])]
    with tempfile.TemporaryDirectory(prefix="zeroskip-") as work:
        speed, dense_vectors, sparse_vectors = encoder.measure(
            run.dense,
            run.compiled_dense,
            run.compiled,
            lines,
            work=Path(work),
            threads=run.threads,
            rounds=2 if quick else 5,
            fuse=not quick,
            progress=run.progress,
        )
    quality = encoder.judge(dense_vectors, sparse_vectors, lines)
    return {
        "checks": checks,
        "speeds": [speed],
        "quality": quality,
        "quality_line": encoder.summary(quality),
        "samples": [],
    }


def _decoder(run: _Run) -> dict[str, Any]:
    quick, compiled = run.settings.quick, run.compiled
    every = compiled.text.encode(["\n".join(run.texts.evaluation)], special=False, cut=False)[0]
    limit = compiled.text.settings.max_length or 1 << 20
    steps = 8 if quick else 64
    prompt = min(64 if quick else decoder.PREFILL_TOKENS, limit - steps - 1, every.size // 2)
    window = min(128 if quick else 512, limit, every.size)
    if prompt < 2:
        raise InvalidArgument(f"demo: the text has {every.size} tokens, too few to measure; pass a longer --text.")
    ids = np.ascontiguousarray(every[:prompt])
    checks = [decoder.check(compiled, run.reference(), ids[:128])]
    speeds = decoder.measure(
        run.dense,
        run.compiled_dense,
        compiled,
        ids,
        decode_tokens=steps,
        rounds=2 if quick else 5,
        progress=run.progress,
    )
    quality = decoder.judge(run.dense, compiled, every, window=window, count=2 if quick else 10, progress=run.progress)
    return {
        "checks": checks,
        "speeds": speeds,
        "quality": quality,
        "quality_line": decoder.summary(quality),
        "samples": decoder.side_by_side(run.dense, compiled, tokens=16 if quick else 48, progress=run.progress),
    }


def sizes(out: Path, dense: LoadedModel, compiled_dense: CompiledModel, compiled: CompiledModel) -> dict[str, Any]:
    """Bytes on disk and of the weights in memory. Dense is float32 as torch holds it, shared weights once."""
    full = 4 * parameters(dense)
    return {
        "disk": [
            {"key": "torch", "label": "dense float32", "bytes": full},
            {"key": "zeroskip_sparse", "label": "zeroskip, sparse", "bytes": folder_bytes(out / "compiled")},
        ],
        "memory": [
            {"key": "torch", "label": "dense float32", "bytes": full},
            {"key": "zeroskip_dense", "label": "zeroskip, dense", "bytes": compiled_dense.nbytes},
            {"key": "zeroskip_sparse", "label": "zeroskip, sparse", "bytes": compiled.nbytes},
        ],
    }


def folder_bytes(folder: Path) -> int:
    """Bytes of the weights' file of a saved model."""
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))
