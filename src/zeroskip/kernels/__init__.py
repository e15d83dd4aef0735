"""Kernels: the native ones and those of other libraries, behind one interface and in one registry.

Look one up with `registry.get(name)`. What cannot run on this machine is there too, and `why_not()` says why; a module
that could not even be imported is in `registry.unavailable`.
"""

from ._base import ACTIVATIONS, ISAS, Kernel, KernelInfo, Prepared, newest, num_threads, registry, x_dtype_of

__all__ = ["ACTIVATIONS", "ISAS", "Kernel", "KernelInfo", "Prepared", "newest", "num_threads", "registry", "x_dtype_of"]
