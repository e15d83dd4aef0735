"""The run of one distillation: its masks, its loop, its checkpoints."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..._errors import ZeroskipError
from ...sparsify import GradualPruner, MaskKeeper, Pattern
from ..loading import LoadedModel
from ..pruning import Progress, max_length, prune
from ..walk import LinearLayer, base_of
from .loop import Best, Budget, LoopSettings, Row, Trainer, train
from .model import TextBatches, encoder_forward, input_norms
from .state import digest_of_model, digest_of_texts, interruptible, write_state

if TYPE_CHECKING:
    import torch

_BAR = 1000
_SAVE_EVERY_S = 60.0
PATIENCE = 6
_NORM_BATCHES = 8
_KEPT = ("step", "seconds", "loss", "cosine", "sparsity")


@dataclass
class Job:
    """What one call of `distill` works with."""

    loaded: LoadedModel
    teacher: LoadedModel
    layers: list[LinearLayer]
    texts: list[str]
    source: str
    sparsity: float
    pattern: Pattern
    schedule: str
    pruned: bool  # before the call
    minutes: float | None
    steps: int | None
    held_back: float
    tokens: int
    rate: float
    device: torch.device
    seed: int
    checkpoint: Path | None
    tell: Progress
    watch: Callable[[Row], None] | None
    notes: list[str] = field(default_factory=list)

    def settings(self) -> dict[str, Any]:
        """What a checkpoint must agree with."""
        return {
            "model": digest_of_model(self.loaded.model),
            "teacher": digest_of_model(self.teacher.model),
            "texts": digest_of_texts(self.texts),
            "layers": digest_of_texts([layer.name for layer in self.layers]),
            "sparsity": self.sparsity,
            "pattern": str(self.pattern),
            "schedule": self.schedule,
            "minutes": self.minutes,
            "steps": self.steps,
            "held_back": self.held_back,
            "tokens": self.tokens,
            "rate": self.rate,
            "seed": self.seed,
        }


@contextmanager
def training(job: Job, home: torch.device) -> Iterator[None]:
    """Both models on the device without dropout; as they were before, afterwards."""
    student, teacher = job.loaded.model, job.teacher.model
    theirs = next(teacher.parameters()).device
    modes = [(module, module.training) for model in (student, teacher) for module in model.modules()]
    grads = [(p, p.requires_grad) for model in (student, teacher) for p in model.parameters()]
    try:
        for model in (student, teacher):
            model.eval().requires_grad_(False)
        student.to(job.device)
        teacher.to(job.device)
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for parameter, wanted in grads:
            parameter.requires_grad_(wanted)
            parameter.grad = None
        student.to(home)
        teacher.to(theirs)


def _trainable(loaded: LoadedModel) -> dict[str, torch.nn.Parameter]:
    """What the training moves: all of the encoder but its embeddings and what follows the last block."""
    from torch import nn

    model = loaded.model
    tables = {id(p) for module in model.modules() if isinstance(module, nn.Embedding) for p in module.parameters()}
    inside = {id(p) for p in base_of(model).parameters()}
    return {
        name: parameter.requires_grad_(True)
        for name, parameter in model.named_parameters()
        if id(parameter) in inside and id(parameter) not in tables and "pooler." not in name
    }


@dataclass
class Found:
    """What a training gave."""

    before: float | None
    best: Best
    trainer: Trainer
    rows: list[dict[str, float]]
    batches: TextBatches
    resumed: bool
    early: bool = False


def run(job: Job, settings: dict[str, Any], state: dict[str, Any] | None) -> Found:
    """Train, from the beginning or from the state of a checkpoint."""
    batches = TextBatches(
        job.loaded,
        job.texts,
        held_back=job.held_back,
        tokens=job.tokens,
        limit=max_length(job.loaded),
        device=job.device,
        seed=job.seed,
    )
    if state is None and job.schedule == "fixed" and not job.pruned:
        _one_shot(job)
    trainer = Trainer(
        encoder_forward(job.loaded),
        encoder_forward(job.teacher),
        {**_trainable(job.loaded), **_weights(job)},
        _keeper(job, batches, state),
        LoopSettings(rate=job.rate, autocast=job.device.type == "cuda"),
    )
    held = batches.held()
    if state is None:
        found = Found(None, Best(), trainer, [], batches, False)
        if trainer.keeper.settled:
            found.before = trainer.held_back(held)
            found.best.see(found.before, trainer)
    else:
        found = _restored(trainer, state, batches)
    _train(job, found, held, settings)
    return found


def _one_shot(job: Job) -> None:
    """SparseGPT with refit on the same texts, as a start."""
    names = [layer.name for layer in job.layers]
    job.loaded.model.to("cpu")
    report = prune(
        job.loaded,
        sparsity=job.sparsity,
        pattern=job.pattern,
        calibration=job.texts,
        include=names,
        seed=job.seed,
        progress=job.tell,
    )
    job.loaded.model.to(job.device)
    job.notes += [f"started from {report.method} with refit {report.refit} ({report.time_s:.0f} s)", *report.notes]


def _weights(job: Job) -> dict[str, torch.nn.Parameter]:
    """The weights that are pruned, by the name that the model has for them."""
    wanted = {id(layer.parameter) for layer in job.layers}
    found = {name: p for name, p in job.loaded.model.named_parameters() if id(p) in wanted}
    for parameter in found.values():
        parameter.requires_grad_(True)
    return found


def _keeper(job: Job, batches: TextBatches, state: dict[str, Any] | None) -> MaskKeeper:
    weights = _weights(job)
    if job.schedule == "fixed":
        return MaskKeeper(weights)
    stream = batches.stream()
    some = [next(stream) for _ in range(_NORM_BATCHES)]
    # The teacher has the same names and the inputs of a dense model, also when a run goes on.
    norms = input_norms(job.teacher, [layer.name for layer in job.layers], some)
    settle = min(0.6, max(0.35, 0.35 + 0.625 * (job.sparsity - 0.5)))  # measured on MiniLM: 0.35 at 50 %, 0.6 at 90 %
    now = 1 - sum(int(w.count_nonzero()) for w in weights.values()) / sum(w.numel() for w in weights.values())
    return GradualPruner(
        weights,
        sparsity=job.sparsity,
        pattern=job.pattern,
        start=min(job.sparsity, max(0.3, now)),
        end=settle - 0.1,
        settle=settle,
        every=50 if job.device.type == "cuda" else 20,
        scales={f"{name}.weight": norm for name, norm in norms.items()},
    )


def _train(job: Job, found: Found, held: list[Any], settings: dict[str, Any]) -> None:
    """The loop, with its checkpoints and what it tells."""
    trainer, best = found.trainer, found.best
    budget = Budget(job.steps, None if job.minutes is None else job.minutes * 60)
    saved_at = time.perf_counter()
    looked = best.cosine if best.values else 1.0

    def save() -> None:
        nonlocal saved_at
        if job.checkpoint is not None:
            write_state(job.checkpoint, settings, _state(found))
        saved_at = time.perf_counter()

    def look(row: Row) -> None:
        nonlocal looked
        looked = row.cosine
        found.rows.append(
            {name: float(getattr(row, name)) for name in ("step", "seconds", "loss", "cosine", "sparsity")}
        )

    def tick(share: float, loss: float | None) -> None:
        if interrupt.asked:
            raise KeyboardInterrupt
        if loss is not None and loss != loss:
            raise ZeroskipError(
                f"distill: the loss is no number after {trainer.steps} steps; pass a smaller rate than {job.rate:g}."
            )
        if loss is not None and job.watch is not None:
            job.watch(Row(trainer.steps, trainer.seconds, share, loss, looked, trainer.keeper.sparsity))
        job.tell("distill", round(share * _BAR), _BAR)
        if time.perf_counter() - saved_at > _SAVE_EVERY_S and share < 1:
            save()

    with interruptible() as interrupt:
        try:
            train(
                trainer,
                found.batches.stream(trainer.steps),
                held,
                budget,
                best=best,
                patience=PATIENCE,
                tell=look,
                tick=tick,
            )
        except KeyboardInterrupt:
            save()
            raise
    found.early = budget.progress(trainer.steps, trainer.seconds) < 1
    trainer.keeper.apply()
    if job.checkpoint is not None:
        job.checkpoint.unlink(missing_ok=True)


def _state(found: Found) -> dict[str, Any]:
    trainer, best = found.trainer, found.best
    return {
        "values": _on_cpu(trainer.values()),
        "optimiser": trainer.optimiser.state_dict(),
        "keeper": trainer.keeper.state_dict(),
        "best": {"cosine": best.cosine, "step": best.step, "worse": best.worse, "values": _on_cpu(best.values)},
        "steps": trainer.steps,
        "seconds": trainer.seconds,
        "before": found.before,
        "rows": found.rows,
    }


def _on_cpu(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value.cpu() for name, value in values.items()}


def _restored(trainer: Trainer, state: dict[str, Any], batches: TextBatches) -> Found:
    """Everything as it was when the checkpoint was written."""
    trainer.assign(state["values"])
    trainer.optimiser.load_state_dict(state["optimiser"])
    trainer.keeper.load_state_dict(state["keeper"])
    trainer.keeper.apply()
    trainer.steps, trainer.seconds = state["steps"], state["seconds"]
    return Found(state["before"], Best(**state["best"]), trainer, list(state["rows"]), batches, True)
