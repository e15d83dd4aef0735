"""The fastest way to run each engine, found by trying them, and what the vectors of each are worth."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import quality
from ..process import Worker, WorkerFailed
from .entries import CHECK_LINES, EXACT, Entry, Variant
from .texts import folder_bytes

Float32 = npt.NDArray[np.float32]
Progress = Callable[[str, int, int], None]
MIXED_BATCHES = (8, 32, 64, 128)
NEIGHBOURS = 10
# Ways to run an engine that lose no more than this in mean cosine to the best one count as equal: the fastest is taken.
SAME_QUALITY = 0.005
_SINGLES, _TURNS = 16, 2


@dataclass(frozen=True)
class Trial:
    """What every trial is given.

    Args:
        folder: Where lines.json and reference.npy are.
        lines: How many lines there are.
        trial_lines: How many of them a trial runs.
        mixed_batches: Batch sizes to try for all lines at once.
        threads: Of each worker.
        limit_s: For an answer.
    """

    folder: Path
    lines: int
    trial_lines: int
    mixed_batches: Sequence[int]
    threads: int
    limit_s: float


def command(python: str | None = None) -> list[str]:
    """What starts a worker, with this Python or another one."""
    return [python or sys.executable, str(Path(__file__).resolve().parent / "worker")]


def start(entry: Entry, chosen: Variant, *, threads: int, limit_s: float) -> Worker:
    """A worker with the engine loaded; nothing is kept running where that fails."""
    worker = Worker(command(entry.python), threads=threads, limit_s=limit_s)
    try:
        answer = worker.ask("load", engine=entry.worker, spec={**chosen.spec, "threads": threads})
        worker.version = answer["version"]
    except WorkerFailed:
        worker.close()
        raise
    return worker


def check(worker: Worker, entry: Entry, folder: Path) -> None:
    """The first lines, together and one by one, against what this entry must give.

    Raises:
        WorkerFailed: If a cosine is below the entry's limit.
    """
    want = np.load(entry.expected)[:CHECK_LINES]
    worker.ask("texts", file=str(folder / "lines.json"))
    out = folder / "check.npy"
    for batch, words in ((CHECK_LINES, "in a batch"), (1, "one by one")):
        worker.ask("ready", batch=batch)
        worker.ask("embed", batch=batch, count=len(want), out=str(out))
        found = np.load(out)
        if found.shape != want.shape or not np.isfinite(found).all():
            raise WorkerFailed(f"wrong result: vectors {found.shape} with NaN or of another size, not {want.shape}")
        worst = float(quality.cosines(want, found).min())
        if not worst >= entry.limit:
            raise WorkerFailed(f"wrong result: the smallest cosine {words} is {worst:.6f}, at least {entry.limit:g}")


def choose(entry: Entry, trial: Trial, progress: Callable[[], None] | None = None) -> Entry:
    """The entry with its best variants first known: for single texts, for batches, and how many texts at once.

    Returns:
        The entry; `failed` with the reason where no variant works.
    """
    if entry.status != "ok":
        return entry
    if len(entry.variants) == 1:
        if progress:
            progress()
        return _judged(entry, trial)
    reasons: list[str] = []
    found: list[dict[str, Any]] = []
    for place, item in enumerate(entry.variants):
        try:
            tried: dict[str, Any] = {"variant": place, "how": item.how, **_try(entry, item, trial)}
            if _is_dense(entry) and tried["cosine_min"] < EXACT:
                raise WorkerFailed(f"wrong result: the smallest cosine to torch is {tried['cosine_min']:.6f}")
            found.append(tried)
        except WorkerFailed as error:
            reasons.append(str(error))
        if progress:
            progress()
    if not found:
        return entry.without("failed", reasons[0])
    best = max(item["cosine"] for item in found)
    equal = [item for item in found if item["cosine"] >= best - SAME_QUALITY]
    single = min(equal, key=lambda item: item["single_s"])
    batch = min(equal, key=lambda item: item["batch_s"])
    chosen = replace(entry, single=single["variant"], batch=batch["variant"], considered=tuple(found))
    return _judged(chosen, trial)


def _is_dense(entry: Entry) -> bool:
    """Whether an entry must give what torch gives: the dense model in float32."""
    return entry.limit == EXACT and entry.model is None


def _try(entry: Entry, item: Variant, trial: Trial) -> dict[str, float]:
    """Quality and rough speed of a variant."""
    worker = start(entry, item, threads=trial.threads, limit_s=trial.limit_s)
    try:
        worker.ask("texts", file=str(trial.folder / "lines.json"))
        out = trial.folder / "trial.npy"
        worker.ask("ready", batch=32)
        worker.ask("embed", batch=0, count=trial.trial_lines, out=str(out))
        reference = np.load(trial.folder / "reference.npy")[: trial.trial_lines]
        each = quality.cosines(reference, np.load(out))
        single = _fastest(worker, batch=1, sorted=False, count=min(_SINGLES, trial.trial_lines))
        batch = _fastest(worker, batch=32, sorted=True, count=trial.trial_lines)
        return {"cosine": float(each.mean()), "cosine_min": float(each.min()), "single_s": single, "batch_s": batch}
    finally:
        worker.close()


def _fastest(worker: Worker, **order: Any) -> float:
    """Seconds of the fastest of some runs after one that counts for nothing."""
    worker.ask("ready", batch=order["batch"])
    worker.ask("run", repeat=1, **order)
    return min(float(worker.ask("run", repeat=1, **order)["seconds"]) for _ in range(_TURNS))


def _once(worker: Worker, **order: Any) -> float:
    """Seconds of one run of a worker that is warm."""
    worker.ask("ready", batch=order["batch"])
    return float(worker.ask("run", repeat=1, **order)["seconds"])


def _judged(entry: Entry, trial: Trial) -> Entry:
    """Quality over all lines, the best batch size for all of them, disk, version; failed where the result is wrong."""
    item = entry.variants[entry.batch]
    reference = np.load(trial.folder / "reference.npy")
    out = trial.folder / f"vectors-{entry.key.replace(':', '-')}.npy"
    try:
        worker = start(entry, item, threads=trial.threads, limit_s=trial.limit_s)
    except WorkerFailed as error:
        return entry.without("failed", str(error))
    try:
        worker.ask("texts", file=str(trial.folder / "lines.json"))
        worker.ask("ready", batch=32)
        worker.ask("embed", batch=0, count=trial.lines, out=str(out))
        vectors = np.load(out)
        if vectors.shape != reference.shape or not np.isfinite(vectors).all():
            return entry.without("failed", f"wrong result: vectors {vectors.shape}, NaN or not {reference.shape}")
        found = replace(entry, quality=measured(reference, vectors), version=worker.version)
        worst = float(quality.cosines(reference, vectors).min())
        if _is_dense(entry) and worst < EXACT:
            return found.without("failed", f"wrong result: the smallest cosine to torch is {worst:.6f}, not {EXACT:g}")
        if not entry.expected:  # an engine of fewer bits is compared with itself from here on
            found = replace(found, expected=str(out))
        sizes = trial.mixed_batches
        times = {size: _once(worker, batch=size, sorted=True, count=trial.trial_lines) for size in sizes}
        best = min(times, key=lambda size: times[size]) if len(times) > 1 else 32
        return replace(found, mixed_batch=best, disk_bytes=folder_bytes([Path(path) for path in item.files]))
    except WorkerFailed as error:
        return entry.without("failed", str(error))
    finally:
        worker.close()


def measured(reference: Float32, vectors: Float32) -> Mapping[str, float]:
    """How close vectors are to those of the dense model in torch."""
    each = quality.cosines(reference, vectors)
    k = min(NEIGHBOURS, len(each) - 1)
    return {
        "cosine_mean": float(each.mean()),
        "cosine_p10": float(np.quantile(each, 0.1)),
        "cosine_min": float(each.min()),
        "neighbours_kept": quality.neighbours_kept(reference, vectors, k=k),
        "rank_correlation": quality.rank_correlation(reference, vectors),
    }
