"""Train what is left of a pruned encoder until it gives the dense model's vectors; unlabelled text is all it needs."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..._errors import InvalidArgument
from ...datasets import calibration_source, calibration_texts
from ...sparsify import Pattern
from ..loading import LoadedModel, load, need
from ..pruning import Progress
from ..report import DistillReport, LayerReport, PruneReport, versions
from ..walk import LinearLayer, prunable
from .loop import Row
from .model import check_encoder
from .run import PATIENCE, Found, Job, run, training
from .state import read_state

if TYPE_CHECKING:
    import torch

SCHEDULES = ("auto", "gradual", "fixed")
_MINUTES = 10.0
_PRUNED = 0.01  # a model with more zeros than this share is taken as pruned already


def distill(
    model: Any,
    *,
    texts: Sequence[str] | str | Path,
    teacher: Any = None,
    sparsity: float | None = None,
    pattern: str | Pattern = "unstructured",
    schedule: str = "auto",
    minutes: float | None = None,
    steps: int | None = None,
    held_back: float = 0.1,
    include: Sequence[str] | str | None = None,
    exclude: Sequence[str] | str | None = None,
    device: str | None = None,
    tokens: int | None = None,
    rate: float | None = None,
    checkpoint: str | Path | None = None,
    resume: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
    watch: Callable[[Row], None] | None = None,
) -> PruneReport:
    """Make an encoder sparse, or take one that is, and train it in place until it gives the dense model's vectors.

    The embeddings stay as they are, and so does what is zero. The state that does best on held-back paragraphs is kept.
    Everything about the call is checked before anything is computed; nothing but the checkpoint is written.

    Args:
        model: What `models.load` gave, or an encoder of Hugging Face, or a SentenceTransformer.
        texts: Paragraphs, a path of a text file, or a name of `datasets.texts`.
        teacher: The dense model, in any of these forms or by name; None: `model` itself as it is now, where it is
            dense.
        sparsity: Of each layer at the end; None: 0.5, or what the pattern implies, or what a pruned model has.
        pattern: As for `prune`; of a pruned model the zeros are kept as they lie.
        schedule: `gradual` begins dense and raises the sparsity while training, which wants some thousands of steps;
            `fixed` keeps the zeros of a pruned model, and prunes a dense one by SparseGPT with refit before. `auto`:
            `fixed` for a pruned model and on a CPU, `gradual` for a dense one on a GPU.
        minutes, steps: When to stop, whichever comes first; with neither given, 10 minutes. It stops earlier where the
            held-back paragraphs get no better.
        held_back: Share of the paragraphs that are never trained on, in (0, 0.5]; 64 of them at most on a CPU,
            200 on a GPU.
        include, exclude: Glob patterns (or parts) of layer names.
        device: `cpu`, `cuda`, ...; None: a GPU where there is one. The model comes back to where it was.
        tokens: In a batch; None: 1024 on a CPU, 8192 on a GPU.
        rate: Peak learning rate of AdamW; None: 1e-4 on a CPU, 2.5e-4 on a GPU.
        checkpoint: File to go on from after an interruption: written every minute and at Ctrl-C, deleted at the end.
        resume: Go on from it. Where it exists and this is False, the call is refused, so that no work is lost.
        seed: Draws the text.
        progress: Called with (stage, done, total) after each step; may raise to stop.
        watch: Called with a `Row` at each step whose loss is known.
    Returns:
        What was done; `distilled` in it has the training.
    Raises:
        InvalidArgument: If an argument cannot be, or the checkpoint is of other settings.
        UnsupportedModel: If the model is no encoder of a known family.
        ShapeError: If the pattern does not divide a layer.
        DamagedFile, ZeroskipError: If the checkpoint cannot be read, or written.
    """
    torch = need("torch")
    began = time.perf_counter()
    _check_numbers(minutes, steps, held_back, tokens, rate, schedule)
    place = _device(device)
    loaded = _student(model)
    layers = _unique(prunable(loaded.model, include, exclude))
    now = _share_of_zeros(layers)
    parsed, wanted, plan = _plan(layers, sparsity, pattern, schedule, now, place.type)
    lines, source = _texts(texts)
    taught = _teacher(teacher, loaded, now)
    small = place.type == "cpu"
    job = Job(
        loaded=loaded,
        teacher=taught,
        layers=layers,
        texts=lines,
        source=source,
        sparsity=wanted,
        pattern=parsed,
        schedule=plan,
        pruned=now > _PRUNED,
        minutes=_MINUTES if minutes is None and steps is None else minutes,
        steps=steps,
        held_back=held_back,
        tokens=tokens or (1024 if small else 8192),
        rate=rate or (1e-4 if small else 2.5e-4),
        device=place,
        seed=seed,
        checkpoint=None if checkpoint is None else Path(checkpoint).expanduser(),
        tell=progress or (lambda _stage, _done, _total: None),
        watch=watch,
    )
    settings = job.settings()
    state = _saved(job, settings, resume)
    home = next(loaded.model.parameters()).device
    with training(job, home), torch.enable_grad():
        found = run(job, settings, state)
    return _report(job, found, time.perf_counter() - began)


def _check_numbers(
    minutes: float | None, steps: int | None, held_back: float, tokens: int | None, rate: float | None, schedule: str
) -> None:
    for name, value in (("minutes", minutes), ("steps", steps), ("tokens", tokens), ("rate", rate)):
        if value is not None and not (isinstance(value, (int, float)) and 0 < value < float("inf")):
            raise InvalidArgument(f"distill: {name} is {value!r}; pass a number above 0.")
    if not 0 < held_back <= 0.5:
        raise InvalidArgument(f"distill: held_back is {held_back!r}; pass a share in (0, 0.5], such as 0.1.")
    if schedule not in SCHEDULES:
        raise InvalidArgument(f"distill: schedule is {schedule!r}; choose one of: {', '.join(SCHEDULES)}.")


def _device(name: str | None) -> torch.device:
    import torch

    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(name)
        torch.empty(1, device=found)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InvalidArgument(
            f"distill: device is {name!r}, which torch cannot use here ({str(error).splitlines()[0][:120]}); "
            "pass device='cpu'."
        ) from error
    return found


def _student(model: Any) -> LoadedModel:
    if isinstance(model, (str, Path)):
        raise InvalidArgument(
            f"distill: model is {str(model)!r}, a name; pass models.load({str(model)!r}), which is then trained "
            "in place."
        )
    loaded = load(model)
    check_encoder(loaded)
    if next(loaded.model.parameters()).dtype.itemsize != 4:
        raise InvalidArgument("distill: the model is not float32; pass model.float().")
    return loaded


def _unique(layers: Sequence[LinearLayer]) -> list[LinearLayer]:
    """Layers that share a weight are one."""
    return list({id(layer.parameter): layer for layer in reversed(layers)}.values())[::-1]


def _share_of_zeros(layers: Sequence[LinearLayer]) -> float:
    zeros = sum(int((layer.parameter == 0).sum()) for layer in layers)
    return zeros / sum(layer.parameter.numel() for layer in layers)


def _plan(
    layers: Sequence[LinearLayer],
    sparsity: float | None,
    pattern: str | Pattern,
    schedule: str,
    now: float,
    device: str,
) -> tuple[Pattern, float, str]:
    """Pattern, final sparsity and schedule of the call."""
    import torch

    parsed = Pattern.parse(pattern)
    pruned = now > _PRUNED
    wanted = now if pruned and sparsity is None else parsed.sparsity_or_default(sparsity, where="distill")
    for layer in layers:
        parsed.check_shape(layer.shape, where=f"distill {layer.name}")
        if not bool(torch.isfinite(layer.parameter).all()):
            raise InvalidArgument(f"distill: weight of {layer.name} holds NaN or Inf; load the model again.")
    if not pruned:
        chosen = ("fixed" if device == "cpu" else "gradual") if schedule == "auto" else schedule
        return parsed, wanted, chosen
    if wanted < now - 0.005:
        raise InvalidArgument(
            f"distill: sparsity is {wanted:g}, but {now:.3f} of the model is zero already; leave sparsity out, or pass "
            "the dense model."
        )
    more = wanted > now + 0.005
    if more and schedule == "fixed":
        raise InvalidArgument(
            f"distill: schedule is 'fixed' and sparsity {wanted:g}, but the model has {now:.3f}; pass "
            "schedule='gradual', or prune it further before."
        )
    return parsed, wanted, "gradual" if more or schedule == "gradual" else "fixed"


def _texts(texts: Sequence[str] | str | Path) -> tuple[list[str], str]:
    if isinstance(texts, (str, Path)):
        try:
            return calibration_texts(texts), calibration_source(texts)[1]
        except InvalidArgument as error:
            raise InvalidArgument(str(error).replace("calibration:", "distill: texts:", 1)) from error
    found = [text for text in texts if isinstance(text, str) and text.strip()]
    if not found:
        raise InvalidArgument("distill: texts is empty; pass some pages of text, a file or a name.")
    return found, f"{len(found)} texts of the caller"


def _teacher(teacher: Any, student: LoadedModel, now: float) -> LoadedModel:
    if teacher is None:
        if now > _PRUNED:
            raise InvalidArgument(
                f"distill: {now:.3f} of the model is zero already and there is no teacher; pass teacher= (the dense "
                "model)."
            )
        return LoadedModel(
            copy.deepcopy(student.model),
            student.tokenizer,
            student.kind,
            student.family,
            student.name,
            student.extra,
        )
    found = load(teacher)
    check_encoder(found, where="distill: teacher")
    if found.model is student.model:
        raise InvalidArgument("distill: teacher is the model itself; pass the dense model, or leave it out.")
    theirs, ours = found.model.config, student.model.config
    for name in ("model_type", "hidden_size", "num_hidden_layers", "vocab_size"):
        if getattr(theirs, name, None) != getattr(ours, name, None):
            raise InvalidArgument(
                f"distill: teacher has {name} {getattr(theirs, name, None)}, the model {getattr(ours, name, None)}; "
                "pass the dense model it was pruned from."
            )
    return found


def _saved(job: Job, settings: dict[str, Any], resume: bool) -> dict[str, Any] | None:
    """The state to go on from, or None."""
    if job.checkpoint is None:
        if resume:
            raise InvalidArgument("distill: resume is True but there is no checkpoint; pass checkpoint=, a file.")
        return None
    if not job.checkpoint.exists():
        return None
    if not resume:
        raise InvalidArgument(
            f"distill: {job.checkpoint} holds a training that was interrupted; pass resume=True to go on, or delete it."
        )
    return read_state(job.checkpoint, settings)


def _report(job: Job, found: Found, time_s: float) -> PruneReport:
    trainer, best = found.trainer, found.best
    if found.early:
        job.notes.append(f"stopped early: the held-back text got no better in {PATIENCE} looks")
    done = DistillReport(
        text=job.source,
        tokens=found.batches.tokens,
        held_lines=found.batches.held_lines,
        teacher=job.teacher.name,
        schedule=job.schedule,
        before=found.before,
        after=best.cosine,
        steps=trainer.steps,
        best_step=best.step,
        minutes=trainer.seconds / 60,
        device=str(job.device),
        resumed=found.resumed,
        settings={"tokens": job.tokens, "rate": job.rate, "minutes": job.minutes, "steps": job.steps},
        history=tuple(found.rows),
    )
    layers = tuple(LayerReport(each.name, each.shape, _share_of_zeros([each])) for each in job.layers)
    return PruneReport(
        method="distill",
        sparsity=job.sparsity,
        pattern=str(job.pattern),
        scope="layer",
        seed=job.seed,
        refit="distill",
        calibration=job.source,
        samples=len(job.texts),
        tokens=found.batches.tokens,
        layers=layers,
        time_s=time_s,
        notes=tuple(job.notes),
        versions=versions(),
        distilled=done,
    )
