"""The fastest model above a quality floor: predict, then prune, compile and measure until just above it.

1. Time every rung of every kind of layer, and measure how sensitive each layer is.
2. Take the fastest assignment of rungs whose predicted losses fit (`floor.allocate`).
3. Make it: prune a copy (SparseGPT, refit), compile it, measure its cosine on held-back lines; correct the prediction.
4. Again, until a trial is just above the floor, or time is up; the fastest that passed is compiled in full and measured
   once more. What is below the floor, or no faster than the model as given, is never returned.
"""

from __future__ import annotations

import copy
import hashlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..._errors import InvalidArgument
from ...datasets import calibration_source, paragraphs
from ...formats import INTEGERS
from ...kernels import X_DTYPES
from ...ops import _cache
from ...ops.clock import quartile
from ..compile import Settings, compile_known
from ..values import Values
from .allocation import Assignment, Bracket, Option, Rung, Table, Trial, time_of
from .losses import LayerLosses, losses_of
from .report import FloorReport, layers_of, trials_of
from .times import VALUES, kind_of, times_of

if TYPE_CHECKING:
    from ..compiled import CompiledModel

Float32 = npt.NDArray[np.float32]

SEARCH_S = 900.0
MOST_TRIALS = 6
_HELD_BACK = 256
_SAMPLE = 32  # of them, for the sensitivity of single layers
_LEAST_LINES = 8
_ROUNDS = 15
_QUICK_S = 5.0  # to measure kernels for a trial, which runs once


@dataclass(frozen=True)
class Lines:
    """The two halves of a text, and how to call it."""

    calibration: list[str]
    held_back: list[str]
    source: str


@dataclass(frozen=True)
class FloorSettings:
    """What `compile` was asked for beside its other settings.

    Args:
        keep_cosine: The floor, in (0, 1).
        calibration: Texts, a path, a name, or None for the documentation inside this Python.
        search_s: Time for the search; one trial is always made.
    """

    keep_cosine: float
    calibration: Any = None
    search_s: float = SEARCH_S

    def check(self) -> None:
        """Refuse what cannot be."""
        floor = self.keep_cosine
        if isinstance(floor, bool) or not isinstance(floor, int | float) or not 0 < floor < 1:
            raise InvalidArgument(
                f"compile: keep_cosine is {floor!r}, it must lie between 0 and 1; pass for example 0.98."
            )
        if not self.search_s > 0:
            raise InvalidArgument(f"compile: search_s is {self.search_s!r}, it must be above 0; leave it out for 900.")


def halves(calibration: Any) -> Lines:
    """Even paragraphs to prune with, odd ones to decide with; what is there twice is taken once."""
    if calibration is None or isinstance(calibration, str | Path):
        text, source = calibration_source("pydoc" if calibration is None else calibration)
        every = paragraphs(text)
        source += ", the default as no text was given" if calibration is None else ""
    else:
        every = list(calibration)
        source = f"{len(every)} texts of the caller"
        if not all(isinstance(item, str) for item in every):
            raise InvalidArgument("compile: calibration holds more than strings; pass texts, a path or a name.")
    lines = list(dict.fromkeys(line for line in every if line.strip()))
    if len(lines) < _LEAST_LINES:
        raise InvalidArgument(
            f"compile: calibration has {len(lines)} different lines, a floor needs {_LEAST_LINES}; pass a longer text."
        )
    held = lines[1::2]
    if len(held) > _HELD_BACK:
        held = [held[place * len(held) // _HELD_BACK] for place in range(_HELD_BACK)]
    return Lines(lines[::2], held, source)


def compile_above(loaded: Any, settings: Settings, floor: FloorSettings) -> CompiledModel:
    """The fastest model above the floor; see the module.

    Args:
        loaded: A `models.LoadedModel`; its weights are put back to what they were.
        settings: Of the compilation.
        floor: The floor, the text, the time.
    Raises:
        InvalidArgument: If the model is no encoder, or the text is too short.
    """
    if loaded.kind != "encoder":
        raise InvalidArgument(
            f"compile: keep_cosine is {floor.keep_cosine:g}, but {loaded.name} is of kind {loaded.kind}, which "
            "has no embeddings to compare; leave it out, or pass an encoder."
        )
    if loaded.tokenizer is None:
        raise InvalidArgument("compile: keep_cosine needs a tokenizer to read lines with; pass tokenizer=.")
    return _Search(loaded, settings, floor).run()


@dataclass
class _Search:
    """One search; the fields after the arguments are filled in as it goes on."""

    loaded: Any
    settings: Settings
    floor: FloorSettings
    lines: Lines = field(init=False)
    started: float = field(default_factory=time.perf_counter)
    weights: dict[str, Float32] = field(default_factory=dict)
    values: list[Values] = field(default_factory=list)
    made: dict[int, Any] = field(default_factory=dict)  # by place in the trials: the pruned model
    seconds: float = 0.0  # of the last trial
    digests: dict[str, str] = field(default_factory=dict)  # of the weights and of the text

    def run(self) -> CompiledModel:
        """Search, and compile what was found."""
        self.lines = halves(self.floor.calibration)
        given = compile_known(self.loaded, replace(self.settings, values="float32", group=None, activations=None))
        reference = self._embed(given)
        self.weights = _weights(self.loaded)
        self.values = ladder(self.settings)
        table = self._table()
        other_s = max(0.0, self._whole_s(given) - time_of(_unchanged(table)))

        def speedup(assignment: Assignment) -> float:
            return (other_s + time_of(_unchanged(table))) / max(other_s + time_of(assignment), 1e-12)

        bracket = Bracket(table, 1.0 - self.floor.keep_cosine)
        for number in range(1, MOST_TRIALS + 1):
            assignment = bracket.next()
            late = time.perf_counter() - self.started + self.seconds > self.floor.search_s
            if assignment is None or (late and number > 1):
                break
            bracket.trials.append(Trial(assignment, self._loss(assignment, reference, number)))
            self.made = {at: kept for at, kept in self.made.items() if bracket.trials[at] is bracket.best}
        why = _why_given(bracket)
        passed = [trial for trial in bracket.trials if trial.loss <= bracket.allowed]
        for trial in sorted(passed, key=lambda item: item.time_s):
            fast = self._final(bracket, trial)
            cosines = _cosines(reference, self._embed(fast))
            gain = self._faster(given, fast)
            if cosines.mean() < self.floor.keep_cosine:
                why = f"the fastest trial ended at {cosines.mean():.4f} with the kernels of the final plan: {_GIVEN}"
                continue
            if gain < 1.0:
                why = f"what was found above the floor runs at {gain:.2f}x, not faster: {_GIVEN}"
                break
            found = f"the fastest above the floor, of {_counted(bracket)}"
            return self._told(fast, bracket, trial.assignment, cosines, gain, found, speedup)
        return self._told(given, bracket, _unchanged(table), _cosines(reference, reference), 1.0, why, speedup)

    def _table(self) -> Table:
        """Times and losses of the rungs of each layer."""
        settings = self.settings
        times = times_of(
            self.weights,
            self.values,
            tokens=max(settings.sizes),
            only=settings.kernels,
            budget_s=settings.budget_s,
            cache=settings.cache,
            progress=settings.progress,
        )
        losses = self._losses()
        table: dict[str, list[Option]] = {}
        for name, weight in self.weights.items():
            own = losses[name]
            table[name] = [
                Option(rung, span, own.prune[rung.prune] + own.values[rung.values, rung.activations])
                for rung, span in times[kind_of(weight)].items()
                if rung.prune in own.prune and (rung.values, rung.activations) in own.values
            ]
        return table

    def _losses(self) -> dict[str, LayerLosses]:
        key = {**self._key("floor losses"), "values": [str(item) + item.x_dtype for item in self.values]}
        known = _cache.recall(key, budget_s=0.0) if self.settings.cache else None
        if known is not None:
            return {
                name: LayerLosses(dict(steps), {(v, a): loss for v, a, loss in values}) for name, steps, values in known
            }
        found = losses_of(
            self.loaded,
            list(self.weights),
            self.values,
            calibration=self.lines.calibration[: _HELD_BACK // 2],
            held_back=self.lines.held_back[:: max(1, len(self.lines.held_back) // _SAMPLE)],
            progress=self.settings.progress,
        )
        kept = [
            [name, [list(item) for item in own.prune.items()], [[*pair, loss] for pair, loss in own.values.items()]]
            for name, own in found.items()
        ]
        _cache.remember(key, kept, budget_s=0.0)
        _cache.flush()
        return found

    def _loss(self, assignment: Assignment, reference: Float32, number: int) -> float:
        """1 - mean cosine of a trial; what an earlier search measured is not measured again."""
        stored = self._mixed(assignment, "").layer_values
        rungs = sorted([name, str(option.rung), str(stored[name])] for name, option in assignment.items())
        key = {**self._key("floor trial"), "rungs": rungs}
        known = _cache.recall(key, budget_s=0.0) if self.settings.cache else None
        if isinstance(known, float):
            return known
        begun = time.perf_counter()
        pruned = self._pruned(assignment, f"trial {number}")
        quick = replace(self._mixed(assignment, f"trial {number}"), sizes=[max(self.settings.sizes)], budget_s=_QUICK_S)
        loss = 1.0 - float(_cosines(reference, self._embed(compile_known(pruned, quick))).mean())
        self.made[number - 1] = pruned
        self.seconds = time.perf_counter() - begun
        _cache.remember(key, loss, budget_s=0.0)
        _cache.flush()
        return loss

    def _final(self, bracket: Bracket, trial: Trial) -> CompiledModel:
        """The model of a trial, compiled with all that was asked for."""
        place = next(at for at, item in enumerate(bracket.trials) if item is trial)
        pruned = self.made.get(place) or self._pruned(trial.assignment, "chosen")
        return compile_known(pruned, self._mixed(trial.assignment, "chosen"))

    def _pruned(self, assignment: Assignment, stage: str) -> Any:
        """A copy of the model, each layer pruned to its rung."""
        from ... import models

        trial = replace(self.loaded, model=copy.deepcopy(self.loaded.model))
        wanted = {name: option.rung.prune for name, option in assignment.items() if option.rung.prune}
        if wanted:
            progress = self._staged(stage)
            models.prune(trial, sparsity=wanted, keep_zeros=True, calibration=self.lines.calibration, progress=progress)
        return trial

    def _mixed(self, assignment: Assignment, stage: str) -> Settings:
        """The settings with the value type of each layer."""
        by_rung = {(item.dtype, item.x_dtype): item for item in self.values}
        chosen = {name: by_rung[option.rung.values, option.rung.activations] for name, option in assignment.items()}
        return replace(
            self.settings,
            values="float32",
            group=None,
            activations=None,
            layer_values=chosen,
            progress=self._staged(stage),
        )

    def _staged(self, stage: str) -> Callable[[str, int, int], None]:
        return lambda inner, done, total: self.settings.progress(f"{stage}: {inner}", done, total)

    def _embed(self, model: CompiledModel) -> Float32:
        return model.embed(self.lines.held_back, normalize=True)

    def _batch(self, model: CompiledModel) -> list[Any]:
        """Held-back lines, the last one cut, of as many tokens as were measured for."""
        left, found = max(self.settings.sizes), []
        for ids in model.text.encode(self.lines.held_back):
            if left > 0:
                found.append(ids[:left])
                left -= ids.size
        return found

    def _whole_s(self, model: CompiledModel) -> float:
        ids = self._batch(model)
        return quartile(_spans([lambda: model.vectors(ids)])[0])[0]

    def _faster(self, given: CompiledModel, fast: CompiledModel) -> float:
        """Speed of a model over the model as given; both in turns."""
        ids = self._batch(given)
        slow, quick = _spans([lambda: given.vectors(ids), lambda: fast.vectors(ids)])
        return quartile(slow)[0] / quartile(quick)[0]

    def _key(self, what: str) -> dict[str, Any]:
        """What losses and trials depend on: weights and text. `scheme` goes up where they are found otherwise."""
        if not self.digests:
            digest = hashlib.sha256()
            for name, tensor in sorted(self.loaded.model.state_dict().items()):
                digest.update(name.encode())
                digest.update(np.ascontiguousarray(tensor.float().numpy()).tobytes())
            text = hashlib.sha256("\0".join([*self.lines.calibration, *self.lines.held_back]).encode())
            self.digests = {"weights": digest.hexdigest(), "text": text.hexdigest()}
        return {"what": what, "scheme": 1, **self.digests}

    def _told(
        self,
        model: CompiledModel,
        bracket: Bracket,
        chosen: Assignment,
        cosines: npt.NDArray[np.float64],
        gain: float,
        why: str,
        speedup: Callable[[Assignment], float],
    ) -> CompiledModel:
        """The model with the report of the search."""
        model.floor = FloorReport(
            keep_cosine=float(self.floor.keep_cosine),
            cosine=min(1.0, float(cosines.mean())),
            cosine_error=float(cosines.std() / math.sqrt(len(cosines))),
            lines=len(cosines),
            calibration=f"{self.lines.source}: even paragraphs prune, odd ones are held back",
            tokens=max(self.settings.sizes),
            predicted_speedup=speedup(chosen),
            measured_speedup=gain,
            search_s=time.perf_counter() - self.started,
            why=why,
            layers=layers_of(chosen, _unchanged(bracket.table)),
            trials=trials_of(
                bracket.trials, {at: speedup(trial.assignment) for at, trial in enumerate(bracket.trials)}
            ),
        )
        return model


_GIVEN = "the model as given"


def _why_given(bracket: Bracket) -> str:
    if not bracket.trials:
        return f"no rung of any layer is faster here and predicted above the floor: {_GIVEN}"
    best = min(trial.loss for trial in bracket.trials)
    return f"of {_counted(bracket)} none is above the floor, the best is at {1 - best:.4f}: {_GIVEN}"


def _counted(bracket: Bracket) -> str:
    count = len(bracket.trials)
    return f"{count} trial{'' if count == 1 else 's'}"


def _unchanged(table: Table) -> Assignment:
    """Every layer as given."""
    return {name: next(item for item in options if item.rung == Rung()) for name, options in table.items()}


def ladder(settings: Settings) -> list[Values]:
    """The value types of the rungs: float32, and those that were asked for; all where none was."""
    found = []
    coarsest = settings.activations or X_DTYPES[-1]
    wanted = list(VALUES)
    if settings.values is not None and settings.values not in {dtype for dtype, _ in VALUES}:
        wanted += [(settings.values, x) for x in (("float32", "int8") if settings.values in INTEGERS else ("float32",))]
    for dtype, x_dtype in wanted:
        if X_DTYPES.index(x_dtype) > X_DTYPES.index(coarsest):
            continue
        if settings.values in (None, dtype) or dtype == "float32":
            group = settings.group if dtype in INTEGERS else None
            found.append(Values.of(dtype, group, x_dtype, kind="encoder"))
    return found


def _weights(loaded: Any) -> dict[str, Float32]:
    """The linear layers that pruning and lowering both know, (out, in) float32."""
    from ... import models
    from ..lowering import lower

    known = lower(loaded.model).linears
    return {
        layer.name: np.ascontiguousarray(layer.weight().numpy())
        for layer in models.prunable(loaded.model)
        if layer.name in known
    }


def _cosines(a: Float32, b: Float32) -> npt.NDArray[np.float64]:
    """Of vectors of length 1, row by row."""
    found: npt.NDArray[np.float64] = (a.astype(np.float64) * b.astype(np.float64)).sum(axis=1)
    return found


def _spans(calls: Sequence[Callable[[], object]]) -> list[list[float]]:
    """Seconds of some calls that take turns."""
    spans: list[list[float]] = [[] for _ in calls]
    for number in range(_ROUNDS + 1):
        for call, own in zip(calls, spans, strict=True):
            start = time.perf_counter()
            call()
            if number:
                own.append(time.perf_counter() - start)
    return spans
