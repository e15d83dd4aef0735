"""Kernels: the native ones and those of other libraries, behind one interface and in one registry.

Look one up with `registry.get(name)`. What cannot run on this machine is there too, and `why_not()` says why; a module
that could not even be imported is in `registry.unavailable`.
"""

from ._base import (
    ACTIVATIONS,
    ISAS,
    OURS,
    X_DTYPES,
    Kernel,
    KernelInfo,
    Prepared,
    newest,
    num_threads,
    registry,
    rounds_within,
    rounds_x_to,
)
from ._operations import OperationKernel, operation_kernel, operations

__all__ = [
    "ACTIVATIONS",
    "ISAS",
    "OURS",
    "X_DTYPES",
    "Kernel",
    "KernelInfo",
    "OperationKernel",
    "Prepared",
    "newest",
    "num_threads",
    "operation_kernel",
    "operations",
    "registry",
    "rounds_within",
    "rounds_x_to",
]
