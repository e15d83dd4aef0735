"""Activation traces: which outputs of a model's layers are zero for which input, one bit each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .._errors import DamagedFile, InvalidArgument, ZeroskipError
from .io.npz import array_names, read_arrays
from .io.smtx import Structure

if TYPE_CHECKING:
    import torch

MARK, VERSION = "zeroskip_trace", 1
# Modules that give exact zeros; others are recorded where they are named.
ZEROING = (
    "ReLU",
    "ReLU6",
    "Threshold",
    "Hardshrink",
    "Softshrink",
    "Hardsigmoid",
    "Hardswish",
    "ReLUSquaredActivation",
)


@dataclass(frozen=True, eq=False)
class LayerTrace:
    """The outputs of one layer.

    Args:
        name: Of the module.
        features: Outputs for each position, K.
        bits: (positions, ceil(K / 8)) uint8; the first feature is the highest bit of the first byte, 1 means active.
    """

    name: str
    features: int
    bits: npt.NDArray[np.uint8]

    def active(self) -> npt.NDArray[np.bool_]:
        """(positions, features)."""
        return np.unpackbits(self.bits, axis=1, count=self.features).astype(np.bool_)

    def structure(self) -> Structure:
        """The active outputs as a pattern, one row a position."""
        rows, columns = np.nonzero(self.active())
        indptr = np.searchsorted(rows, np.arange(self.bits.shape[0] + 1)).astype(np.int64)
        return Structure((self.bits.shape[0], self.features), indptr, columns.astype(np.int64))

    def statistics(self) -> dict[str, Any]:
        """name, positions, features; density: share of active outputs, and its least, most and standard deviation over
        positions; never_active and always_active: features that are so at every position."""
        active = self.active()
        by_position, by_feature = active.mean(axis=1), active.sum(axis=0)
        return {
            "name": self.name,
            "positions": active.shape[0],
            "features": self.features,
            "density": float(active.mean()),
            "density_std": float(by_position.std()),
            "density_min": float(by_position.min()),
            "density_max": float(by_position.max()),
            "never_active": int((by_feature == 0).sum()),
            "always_active": int((by_feature == active.shape[0]).sum()),
        }


def record(
    model: torch.nn.Module,
    inputs: Iterable[Any],
    *,
    layers: Sequence[str] | None = None,
    threshold: float = 0.0,
) -> list[LayerTrace]:
    """Run a model and record which outputs of its layers are active, |y| > threshold.

    Args:
        model: Any torch module; its mode and its weights stay as they are.
        inputs: Batches: a tensor, a tuple of arguments, or a mapping of arguments by name.
        layers: Globs of module names; None takes every module that gives exact zeros (`ZEROING`).
        threshold: At least 0.
    Returns:
        One for each layer, in the order of the model. The features are the last axis of an output, of images (N, C, H,
        W) the channels; every other place is a position.
    Raises:
        InvalidArgument: If no module fits, a layer was never run, gave no tensor or NaN, or changed its features.
    """
    import torch

    if not 0 <= threshold < float("inf"):
        raise InvalidArgument(f"record: threshold is {threshold}; give a finite number of at least 0.")
    chosen = _chosen(model, layers)
    found: dict[str, list[npt.NDArray[np.uint8]]] = {name: [] for name in chosen}
    sizes: dict[str, int] = {}

    def hook(name: str) -> Any:
        def keep(_module: Any, _args: Any, output: Any) -> None:
            if not isinstance(output, torch.Tensor) or output.ndim == 0 or bool(torch.isnan(output).any()):
                raise InvalidArgument(f"record: layer {name!r} gave no tensor, or NaN in it; leave it out of layers.")
            values = output.detach().movedim(1, -1) if output.ndim == 4 else output.detach()
            active = (values.abs() > threshold).reshape(-1, values.shape[-1]).cpu().numpy()
            if sizes.setdefault(name, active.shape[1]) != active.shape[1]:
                raise InvalidArgument(
                    f"record: layer {name!r} has {active.shape[1]} features, and {sizes[name]} before."
                )
            found[name].append(np.packbits(active, axis=1))

        return keep

    handles = [module.register_forward_hook(hook(name)) for name, module in chosen.items()]
    try:
        with torch.no_grad():
            for batch in inputs:
                if isinstance(batch, Mapping):
                    model(**batch)
                else:
                    model(*(batch if isinstance(batch, tuple) else (batch,)))
    finally:
        for handle in handles:
            handle.remove()
    for name, parts in found.items():
        if not sum(part.size for part in parts):
            raise InvalidArgument(f"record: layer {name!r} was never run; leave it out of layers, or pass inputs.")
    return [LayerTrace(name, sizes[name], np.concatenate(parts)) for name, parts in found.items()]


def _chosen(model: torch.nn.Module, layers: Sequence[str] | None) -> dict[str, torch.nn.Module]:
    every = dict(model.named_modules())
    if layers is None:
        fits = {name: module for name, module in every.items() if type(module).__name__ in ZEROING}
    else:
        fits = {name: one for name, one in every.items() if any(fnmatchcase(name, glob) for glob in layers)}
    if not fits:
        asked = "that gives exact zeros" if layers is None else f"like {', '.join(layers)}"
        raise InvalidArgument(f"record: the model has no module {asked}; name some of its modules in layers.")
    return fits


def save(path: str | Path, traces: Sequence[LayerTrace]) -> None:
    """Write traces to an `.npz` file.

    Raises:
        InvalidArgument: If the name does not end in .npz.
        ZeroskipError: If the disk refuses.
    """
    path = Path(path)
    if path.suffix != ".npz":
        raise InvalidArgument(f"traces: {path} does not end in .npz; choose a name that does.")
    arrays: dict[str, Any] = {MARK: np.array(VERSION), "names": np.array([one.name for one in traces])}
    arrays["features"] = np.array([one.features for one in traces], dtype=np.int64)
    arrays |= {f"bits_{at}": one.bits for at, one in enumerate(traces)}
    scratch = path.with_name(f".{path.name}.part")
    try:
        with open(scratch, "wb") as file:
            np.savez_compressed(file, **arrays)
        scratch.replace(path)
    except OSError as error:
        raise ZeroskipError(f"traces: {path} cannot be written ({error.strerror}); choose another folder.") from None
    finally:
        scratch.unlink(missing_ok=True)


def is_trace(path: str | Path) -> bool:
    """Whether an `.npz` file says that it holds traces."""
    return MARK in array_names(path)


def load(path: str | Path) -> list[LayerTrace]:
    """The traces that `save` wrote.

    Raises:
        DamagedFile: If the file is none of them, or its parts contradict each other.
    """
    head = read_arrays(path, (MARK, "names", "features"))
    names, features = head["names"], head["features"]
    whole = names.ndim == features.ndim == 1 and names.size == features.size and names.dtype.kind == "U"
    if not whole or features.dtype.kind not in "iu" or head[MARK].size != 1 or int(head[MARK]) != VERSION:
        raise DamagedFile(f"{path}: it holds no traces of version {VERSION}; record them again.")
    bits = read_arrays(path, [f"bits_{at}" for at in range(names.size)])
    found = []
    for at, (name, size) in enumerate(zip(names.tolist(), features.tolist(), strict=True)):
        one = bits[f"bits_{at}"]
        if one.dtype != np.uint8 or one.ndim != 2 or size < 1 or one.shape[0] < 1 or one.shape[1] != -(-size // 8):
            raise DamagedFile(f"{path}: the bits of layer {name!r} do not fit its {size} features; record them again.")
        found.append(LayerTrace(name, size, one))
    return found
