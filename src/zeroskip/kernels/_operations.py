"""Kernels of operations on a pattern: SDDMM, masked softmax, attention and sums over the edges of a graph.

They differ from products with a weight matrix (`Kernel`): nothing is packed, since a mask or a graph comes with each
call or lasts for a few, and each operation has arguments of its own. So an entry is a function and what it needs, and
the operation's file in `ops` says what the function is called with.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .._errors import KernelUnavailable
from .._registry import Registry
from ._base import ISAS


@dataclass(frozen=True)
class OperationKernel:
    """One operation, for one kind of pattern and value type, on some hardware or in some library.

    Attributes:
        name: op_format_dtype_isa; the registry key and the label in benchmarks.
        op: sddmm, masked_softmax, attention, ... : the name of a function of `zeroskip.ops`.
        format: What names the entries: csr, bsr, rule, ...
        dtype: Value type of the dense operands that it reads.
        isa: Instruction set; for other libraries, the library's name.
        origin: Who wrote it: native, torch, scipy, ...
        function: The work. What it is called with, and that it trusts it, says the operation's file in `ops`.
        reason: Why it cannot run on this machine; None where it can.
        doc: One line.
        bind: Makes what depends on the pattern alone, and gives the function for the other arguments. Benchmarks time
            preparation and calls apart; None where nothing is prepared. What it gives may have `nbytes`, what it keeps
            beside the pattern; `on(a, b)`, which puts operands where the kernel computes and gives the call; and
            `seconds(call)`, which times it by that clock.
        device: Where it computes: cpu, or cuda.
    """

    name: str
    op: str
    format: str
    dtype: str
    isa: str
    origin: str
    function: Callable[..., Any]
    reason: str | None = None
    doc: str = ""
    bind: Callable[[Any], Callable[..., Any]] | None = None
    device: str = "cpu"

    def why_not(self) -> str | None:
        return self.reason


operations: Registry[OperationKernel] = Registry("kernel", "zeroskip.kernels")


def operation_kernel(where: str, op: str, format: str, dtype: str, name: str = "auto") -> OperationKernel:
    """The kernel called `name`; for "auto" the newest of ours for this operation, pattern and value type.

    Raises:
        KernelUnavailable: If it is not known, cannot run on this machine, or is for something else; says why.
    """
    fitting = [k for k in operations if (k.op, k.format, k.dtype) == (op, format, dtype)]
    usable = [kernel for kernel in fitting if kernel.why_not() is None]
    if name == "auto":
        ours = [kernel for kernel in usable if kernel.origin == "native"]
        if not ours:
            raise KernelUnavailable(f"{where}: there is no native {op} kernel for {format} in {dtype} on this machine.")
        return max(ours, key=lambda kernel: ISAS.index(kernel.isa))
    mend = f'choose "auto" or one of: {", ".join(kernel.name for kernel in usable)}.'
    if name not in operations:
        raise KernelUnavailable(f"{where}: kernel is {name!r}, which is not known; {mend}")
    kernel = operations.get(name)
    if kernel.why_not() is not None:
        raise KernelUnavailable(f"{where}: kernel is {name!r}, which cannot run here: {kernel.why_not()}; {mend}")
    if kernel not in fitting:
        found = f"{kernel.op} of {kernel.format} in {kernel.dtype}"
        raise KernelUnavailable(
            f"{where}: kernel is {name!r}, which is for {found}, not {op} of {format} in {dtype}; {mend}"
        )
    return kernel
