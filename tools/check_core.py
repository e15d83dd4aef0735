"""Multiply sparse matrices beside NumPy alone: what an installed wheel must do without torch or a compiler."""

from __future__ import annotations

import importlib.util
import sys


def main() -> int:
    """Import the installed package, multiply in every format, and compare with float64."""
    import numpy as np

    import zeroskip
    from zeroskip import testing

    if importlib.util.find_spec("torch") is not None:
        print("check_core: torch is installed here, so this shows nothing", file=sys.stderr)
        return 1
    rng = np.random.default_rng(0)
    w = rng.standard_normal((48, 64), dtype=np.float32) * (rng.random((48, 64)) < 0.3)
    x = rng.standard_normal((64, 24), dtype=np.float32)
    native = [k for k in zeroskip.kernels.registry if k.origin == "native" and k.dtype == "float32" and not k.why_not()]
    x_dtypes = {k.name: zeroskip.kernels.rounds_x_to(k) for k in native} | {"auto": "float32"}
    used = set()
    for name in ("COO", "CSR", "Bitmask", "BSR"):
        params = {"block": (4, 4)} if name == "BSR" else {}
        a = getattr(zeroskip.formats, name).from_dense(w, **params)
        for kernel in ("auto", *(k.name for k in native if not k.rejects(a, x.shape[1]))):
            got = zeroskip.ops.spmm(a, x, kernel=kernel)
            limits = testing.bound(a, x, x_dtype=x_dtypes[kernel])
            if not (np.abs(got - limits.expected) <= limits.allowed).all():
                print(f"check_core: {name} by {kernel} is wrong", file=sys.stderr)
                return 1
            used.add(kernel)
    used.discard("auto")
    print(
        f"check_core: zeroskip {zeroskip.__version__} without torch; "
        f"{len(used)} native float32 kernels are right: {' '.join(sorted(used))}"
    )
    if not used:
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
