"""Load a saved model: map it, pack its matrices for this processor, measure nothing."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NoReturn

import numpy as np

from .. import io
from .._errors import DamagedFile, FormatError, InvalidArgument
from ..io import SavedModel
from .compiled import CompiledModel
from .floor.report import FloorReport
from .layerplan import Choice, LayerPlan, lane_limits, plan_from_json
from .machine import differs
from .packing import Ranges, merge_ranges, native, pack, stand_in
from .text import Text, TextSettings


def load(
    folder: str | os.PathLike[str], *, verify: bool = False, threads: int | None = None, mapped: bool = True
) -> CompiledModel:
    """Load a model that `save` wrote.

    The file is mapped and the dense model never in memory: matrices are packed straight from the file, embedding tables
    stay there. Kernels are those of the saved plan; what this processor cannot run is replaced by the nearest it can,
    and `notes` says so.

    Args:
        folder: The saved model.
        verify: Whether to compare the sha256 of all weights, which reads them once more.
        threads: Threads of the native kernels, for the whole process; None leaves them as they are.
        mapped: Whether embedding tables stay in the file. Else they are copied, and the file may be changed, cut short
            or deleted afterwards: with a mapped file that ends the process. Such a model cannot be saved again.
    Raises:
        InvalidArgument: If there is no saved model.
        DamagedFile: If any part of it is damaged, or says something untrue.
    """
    if threads is not None:
        if threads < 1:
            raise InvalidArgument(f"load: threads is {threads}, it must be at least 1; leave it out for all cores.")
        native().set_num_threads(threads)
    saved = io.open_saved(folder, verify=verify, mapped=mapped)
    manifest = saved.manifest
    where = f"load: {saved.folder / io.MANIFEST}"
    from .graph import Graph

    try:
        graph = Graph.from_json(manifest.graph)
    except FormatError as error:
        raise DamagedFile(f"{where}: {error}") from error
    floor = None if manifest.floor is None else FloorReport.from_json(f"{where}: floor", manifest.floor)
    plan, notes = _runnable(saved, plan_from_json(where, manifest.plan))
    if elsewhere := differs(dict(manifest.machine)):
        notes.append(elsewhere)
    settings = TextSettings.from_json(f"{where}: text", manifest.text)
    # One after the other: packing uses all threads itself; two at a time took 15 % longer (SmolLM2, Zen 3, 2 cores).
    ranges = {layer.name: _pack(saved, layer) for layer in plan}
    tensors = {name: saved.dense(name) for name in graph.tensor_names()}
    if not mapped:  # copies of what is needed, so that the rest of the file is not held in memory
        tensors = {name: np.array(array) for name, array in tensors.items()}
    files = {name: saved.read_file(name) for name in saved.files if name != io.WEIGHTS}
    try:
        return CompiledModel(
            kind=manifest.kind,
            family=manifest.family,
            name=manifest.name,
            values=manifest.values,
            graph=graph,
            tensors=tensors,
            ranges=ranges,
            matrix_of=saved.matrix if mapped else _gone,
            plan=plan,
            text=Text(settings, files),
            machine=manifest.machine,
            notes=notes,
            floor=floor,
        )
    except (FormatError, MemoryError) as error:
        raise DamagedFile(f"{where}: {error}") from error


def _gone(name: str) -> NoReturn:
    raise InvalidArgument(
        f"save: the model was loaded with mapped=False and holds {name!r} only as its kernel wants it; load it mapped."
    )


def _runnable(saved: SavedModel, plan: Sequence[LayerPlan]) -> tuple[tuple[LayerPlan, ...], list[str]]:
    """The plan with kernels that run here, and a note for each that was replaced."""
    notes: dict[str, None] = {}
    linears = saved.manifest.linears
    if sorted(layer.name for layer in plan) != sorted(linears):
        raise DamagedFile(f"load: {saved.folder}: plan and linears name different layers; save the model again.")

    def here(layer: LayerPlan, choice: Choice) -> Choice:
        stored = linears[layer.name]
        name, why = stand_in(choice.kernel, stored.format, stored.dtype)
        if why is None:
            return choice
        notes[why] = None
        return replace(choice, kernel=name, time_s=None, reason=f"{why}; not measured")

    runnable = []
    for layer in plan:
        if layer.shape != linears[layer.name].shape:
            raise DamagedFile(
                f"load: {saved.folder}: plan and linears give {layer.name!r} different shapes; save again."
            )
        runnable.append(replace(layer, choices=tuple(here(layer, choice) for choice in layer.choices)))
    return tuple(runnable), list(notes)


def _pack(saved: SavedModel, layer: LayerPlan) -> Ranges:
    matrix = saved.matrix(layer.name)
    names = [choice.kernel for choice in layer.choices]
    try:
        made: dict[str, Any] = {name: pack(name, matrix) for name in dict.fromkeys(names)}
    except (FormatError, ValueError, MemoryError) as error:
        raise DamagedFile(f"load: {saved.folder}: matrix {layer.name!r} cannot be packed ({error}).") from error
    limits = lane_limits([choice.n for choice in layer.choices])
    return merge_ranges([(limit, made[name]) for limit, name in zip(limits, names, strict=True)])
