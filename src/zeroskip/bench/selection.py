"""Which kernels take part in a benchmark, and as what."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase

from .. import kernels
from .._errors import InvalidArgument
from ..kernels import OURS, Kernel, OperationKernel, newest, rounds_x_to

CPU = "cpu"
# The last part of a kernel's name where it is made for a number of columns.
_TILE = re.compile(r"_n(\d+)$")


def select(wanted: Sequence[str], peers: Sequence[str], dtype: str, device: str = CPU) -> list[tuple[Kernel, str]]:
    """The kernels asked for, each with its role; those that cannot run here are among them where they were named.

    Args:
        device: Where `auto` and `all` look, of ours and of rivals.
    Raises:
        InvalidArgument: If a kernel or peer is not known, or nothing is left.
    """
    known = [kernel for kernel in kernels.registry if kernel.op == "spmm"]
    found = {kernel.name: (kernel, role(kernel)) for name in wanted for kernel in _wanted(name, known, dtype, device)}
    found.update({kernel.name: (kernel, role(kernel)) for kernel in _rivals(peers, known, device)})
    if not found:
        raise InvalidArgument(f"bench: no kernel for {dtype} here; see `zeroskip list kernels`.")
    return list(found.values())


def _wanted(name: str, known: Sequence[Kernel], dtype: str, device: str) -> list[Kernel]:
    own = [kernel for kernel in known if _is_ours(kernel, dtype, device)]
    if name == "all":
        return own
    if name == "auto":
        usable = [kernel for kernel in own if kernel.why_not() is None]
        # Fixed point takes part where it is named: beside it float32 would never be the best.
        return newest(kernel for kernel in usable if rounds_x_to(kernel) != "int16")
    hits = [kernel for kernel in known if fnmatchcase(kernel.name, name)]
    if not hits:
        near = get_close_matches(name, sorted(kernel.name for kernel in known), 5, 0.0)
        raise InvalidArgument(
            f"bench: kernel {name!r} is not known; choose auto, all, a glob or a name of `zeroskip list kernels`, "
            f"such as {', '.join(near)}."
        )
    return hits


def _rivals(peers: Sequence[str], known: Sequence[Kernel], device: str) -> list[Kernel]:
    origins = {kernel.origin for kernel in known}
    wrong = set(peers) - origins - {"auto", "all", "none"}
    if wrong:
        names = ", ".join(sorted(origins - set(OURS)))
        raise InvalidArgument(f"bench: peer {sorted(wrong)[0]!r} is not known; choose auto, all, none or of: {names}.")
    found = []
    for kernel in known:
        if device_of(kernel) != device:
            continue  # another machine, so to speak; it takes part where --kernels names it
        named = kernel.origin in peers or "all" in peers
        dense = kernel.format == "dense" and "auto" in peers and kernel.why_not() is None
        # What rounds B is no rival of the others; it takes part where it is named.
        if kernel.origin not in OURS and rounds_x_to(kernel) == "float32" and (named or dense):
            found.append(kernel)
    return found


def device_of(kernel: Kernel | OperationKernel) -> str:
    """Where a kernel computes: cpu, or cuda."""
    return str(getattr(kernel, "device", CPU))


def _is_ours(kernel: Kernel, dtype: str, device: str) -> bool:
    return kernel.origin in OURS and kernel.dtype == dtype and device_of(kernel) == device


def role(kernel: Kernel) -> str:
    """candidate, dense, rounded or peer."""
    if kernel.origin in OURS:
        return "candidate"
    if rounds_x_to(kernel) != "float32":
        return "rounded"
    return "dense" if kernel.format == "dense" else "peer"


def meant_for(kernel: Kernel, n: int) -> bool:
    """Whether a kernel is made for `n` columns, by its name: `_n1` for one, `_n16` for 2 to 16, others for any."""
    tile = _TILE.search(kernel.name)
    return tile is None or (n == 1 if tile[1] == "1" else 1 < n <= int(tile[1]))
