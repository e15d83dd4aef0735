"""Kernels of others: Python entry points of the group `zeroskip.kernels`, and shared libraries with a C function.

An entry point is a `Kernel`, an `OperationKernel`, several of them, or a function
`spmm(indptr, indices, data, shape, x, out)`. A library is named in `ZEROSKIP_PLUGINS`, or handed to `use`;
`zeroskip_plugin.h` beside this file says what it holds. One that is wrong stays in the list as a kernel that cannot
run, with the reason, and takes nothing else down with it (a crash of its own code aside).
"""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .._errors import KernelUnavailable, ZeroskipError
from ..formats import CSR, SHORT, SparseMatrix
from ._base import OURS, Float32, KernelInfo, Prepared, registry
from ._epilogue import finish
from ._operations import OperationKernel, operations

GROUP = "zeroskip.kernels"
VARIABLE = "ZEROSKIP_PLUGINS"
INCLUDE = Path(__file__).parent
_ARGUMENTS = ("indptr", "indices", "data", "shape", "x", "out")
_PARTS = ("name", "op", "format", "dtype", "isa", "origin", "why_not", "rejects", "prepare")


@dataclass(frozen=True)
class Plugin:
    """One that was found.

    Attributes:
        name: Of the entry point, or of the file without `lib` and its ending.
        source: The package and what it names, or the file.
        kernels: Names of the kernels that it brought, the one that tells what is wrong among them.
        reason: Why it cannot be used; None where it can.
    """

    name: str
    source: str
    kernels: tuple[str, ...]
    reason: str | None


plugins: list[Plugin] = []


def discover() -> None:
    """Load what is installed and what `ZEROSKIP_PLUGINS` names; called once, when kernels are first looked up."""
    from importlib import metadata  # imports a dozen modules

    for point in sorted(metadata.entry_points(group=GROUP), key=lambda point: point.name):
        package = point.dist.name if point.dist is not None else "?"
        _take(point.name, f"package {package}, {point.value}", _of_point(point))
    for path in filter(None, os.environ.get(VARIABLE, "").split(os.pathsep)):
        _take(_stem(path), path, _of_library(path))


def use(paths: Iterable[str | os.PathLike[str]]) -> list[str]:
    """Load shared libraries, here and in processes that are started later.

    Args:
        paths: Files; those that were loaded already are passed over.
    Returns:
        The origin of each one's kernel, as `zeroskip bench spmm --peers` takes it.
    """
    registry.names()  # discovers first: what a file may not displace must be there
    origins = []
    for path in (str(Path(path).resolve()) for path in paths):
        origins.append(_stem(path))
        if all(plugin.source != path for plugin in plugins):
            _take(_stem(path), path, _of_library(path))
            known = os.environ.get(VARIABLE)
            os.environ[VARIABLE] = path if not known else known + os.pathsep + path
    return origins


def _stem(path: str) -> str:
    name = Path(path).name.split(".")[0]
    return _plain(name.removeprefix("lib"))


def _plain(name: str) -> str:
    """A name as kernels have them: small letters, digits and underscores."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_") or "plugin"


def _take(name: str, source: str, load: Callable[[], list[Any]]) -> None:
    """Load a plug-in and register its kernels, all or none; what is wrong with it becomes a kernel's reason."""
    try:
        found = load()
        for kernel in found:
            _check(kernel)
        if len({kernel.name for kernel in found}) < len(found):
            raise KernelUnavailable("two of its kernels have one name")
        taken = [kernel.name for kernel in found if kernel.name in registry or kernel.name in operations]
        if taken:
            raise KernelUnavailable(f"{taken[0]!r} is registered already; choose another name")
        for kernel in found:
            (operations if isinstance(kernel, OperationKernel) else registry).add(kernel.name, kernel)
    except (Exception, SystemExit) as error:  # the code of others may raise anything, or leave
        reason = f"plug-in {name} ({source}): {_words(error)}"
        found = [_broken(_plain(name), reason)]
        plugins.append(Plugin(name, source, (found[0].name,), reason))
        return
    reasons = [reason for kernel in found if (reason := kernel.why_not())]
    plugins.append(Plugin(name, source, tuple(kernel.name for kernel in found), "; ".join(reasons) or None))


def _words(error: BaseException) -> str:
    """An error in one line."""
    text = " ".join(str(error).split())[:300]
    return text if isinstance(error, ZeroskipError) else f"{type(error).__name__}: {text}"


def _broken(name: str, reason: str) -> BrokenPlugin:
    label, tries = f"spmm_csr_f32_{name}", 1
    while label in registry:
        tries += 1
        label = f"spmm_csr_f32_{name}_{tries}"
    kernel = BrokenPlugin(label, "csr", "float32", name, name, reason=reason)
    registry.add(label, kernel)
    return kernel


def _check(kernel: Any) -> None:
    """Refuse what the rest of zeroskip would stumble over."""
    if isinstance(kernel, OperationKernel):
        return
    lacks = [part for part in _PARTS if not hasattr(kernel, part)]
    if lacks or isinstance(kernel, type):
        what = "a class; register an instance" if isinstance(kernel, type) else f"without {', '.join(lacks)}"
        raise KernelUnavailable(f"{kernel!r} is no kernel: it is {what}")
    if kernel.op != "spmm" or kernel.dtype not in SHORT:
        raise KernelUnavailable(
            f"{kernel.name} has op {kernel.op!r} and dtype {kernel.dtype!r}; op is spmm, dtype of {', '.join(SHORT)}"
        )
    start = f"spmm_{kernel.format}_{SHORT[kernel.dtype]}_"
    if not re.fullmatch(re.escape(start) + "[a-z0-9_]+", kernel.name) or kernel.isa not in kernel.name.split("_")[3:]:
        raise KernelUnavailable(f"name is {kernel.name!r}, it is {start} and then its isa, {kernel.isa!r}; rename it")
    if kernel.origin in OURS:
        raise KernelUnavailable(f"{kernel.name} has origin {kernel.origin!r}, which is zeroskip's; name the package")


def _of_point(point: Any) -> Callable[[], list[Any]]:
    def load() -> list[Any]:
        found = point.load()
        if isinstance(found, list | tuple):
            return list(found)
        if callable(found) and not hasattr(found, "prepare"):
            _check_signature(found)
            name = _plain(point.name)
            return [PluginKernel(f"spmm_csr_f32_{name}", "csr", "float32", _isa(name), name, function=found)]
        return [found]

    return load


def _isa(name: str) -> str:
    """The part of a kernel's name that stands for its library: names hold one part for it, so it is the first."""
    return name.split("_")[0]


def _check_signature(function: Callable[..., Any]) -> None:
    try:
        inspect.signature(function).bind(*_ARGUMENTS)
    except TypeError as error:
        raise KernelUnavailable(f"it is called as spmm({', '.join(_ARGUMENTS)}): {error}") from None
    except ValueError:
        return  # compiled functions may tell nothing of their arguments


def _of_library(path: str) -> Callable[[], list[Any]]:
    def load() -> list[Any]:
        from ._plugin_library import Library

        name = _stem(path)
        library = Library(path)
        return [PluginKernel(f"spmm_csr_f32_{name}", "csr", "float32", _isa(name), name, library=library)]

    return load


@dataclass(frozen=True)
class BrokenPlugin(KernelInfo):
    """Stands for a plug-in that cannot be loaded."""

    reason: str = ""

    def why_not(self) -> str | None:
        return self.reason

    def prepare(self, a: SparseMatrix) -> Prepared:
        raise KernelUnavailable(f"{self.name}: {self.reason}")


@dataclass(frozen=True)
class PluginKernel(KernelInfo):
    """A plain function, of Python or of a library, as a kernel; both get CSR with int64, int32 and float32 arrays."""

    function: Callable[..., Any] | None = None
    library: Any = None

    def why_not(self) -> str | None:
        found = None if self.library is None else self.library.why_not()
        return None if found is None else str(found)

    def rejects(self, a: SparseMatrix, n: int) -> str | None:
        if a.shape[1] > 2**31 - 1:
            return f"shape {a.shape} does not fit the 32-bit column indices of csr"
        return None

    def prepare(self, a: SparseMatrix) -> Prepared:
        csr = a if isinstance(a, CSR) else CSR.from_coo(a.to_coo())
        arrays = np.array(csr.indptr, np.int64), np.array(csr.indices, np.int32), np.array(csr.decoded(), np.float32)
        for array in arrays:
            array.setflags(write=False)
        packed = None if self.library is None else self.library.pack(self.name, a.shape, arrays)
        return PluginPrepared(self.name, a.shape, arrays, self.function, packed)


@dataclass(frozen=True)
class PluginPrepared:
    kernel: str
    shape: tuple[int, int]
    arrays: Sequence[Any]
    function: Callable[..., Any] | None
    packed: Any

    @property
    def nbytes(self) -> int:
        own = 0 if self.packed is None else int(self.packed.nbytes)
        return own or sum(int(array.nbytes) for array in self.arrays)

    def run(
        self,
        x: Float32,
        out: Float32,
        *,
        bias: Float32 | None = None,
        activation: str | None = None,
        transposed: bool = False,
    ) -> None:
        source = np.ascontiguousarray(x.T) if transposed else x.view()
        result = np.full(out.shape[::-1], np.nan, np.float32) if transposed else out
        source.setflags(write=False)
        if self.packed is not None:
            self.packed.run(source, result)
        else:
            self._call(source, result)
        if transposed:
            out[...] = result.T
        finish(out, bias, activation, transposed)

    def _call(self, x: Float32, out: Float32) -> None:
        assert self.function is not None
        try:
            found = self.function(*self.arrays, self.shape, x, out)
        except Exception as error:
            raise KernelUnavailable(f"{self.kernel}: the plug-in raised {_words(error)}") from error
        if found is not None and found is not out:
            raise KernelUnavailable(
                f"{self.kernel}: the plug-in returned {type(found).__name__}; write to out instead."
            )
