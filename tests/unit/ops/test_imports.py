"""What importing loads, and what is left where the native module is missing; each in a fresh interpreter."""

from __future__ import annotations

import subprocess
import sys

HEAVY = ("torch", "scipy", "transformers", "onnxruntime", "onnx", "matplotlib")


def fresh(code: str) -> str:
    """What `code` prints in a new interpreter."""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_the_package_alone_loads_not_even_numpy() -> None:
    assert fresh("import sys, zeroskip; zeroskip.__version__; print('numpy' in sys.modules)") == "False"


def test_the_core_needs_numpy_alone() -> None:
    code = f"""
import sys, numpy, zeroskip
from zeroskip.testing import random_matrix
zeroskip.kernels.registry.names()
a = random_matrix((16, 24), 0.5)
zeroskip.ops.spmm(a, numpy.ones((24, 3), numpy.float32))
print([name for name in {HEAVY!r} if name in sys.modules])
"""
    assert fresh(code) == "[]"


def test_without_the_native_module_the_reason_is_kept_and_numpy_multiplies() -> None:
    code = """
import sys
sys.modules["zeroskip._native"] = None
import numpy, zeroskip
from zeroskip.testing import assert_within_bound, random_dense, random_matrix
registry = zeroskip.kernels.registry
assert "spmm_csr_f32_scalar" not in registry.names()
assert "_native" in registry.unavailable["cpu"]
a, x = random_matrix((16, 24), 0.5), random_dense((24, 3))
assert_within_bound(zeroskip.ops.spmm(a, x), a, x)
print(sorted({registry.get(m.kernel).origin for m in zeroskip.plan("spmm", a, n=3).measured}))
"""
    assert fresh(code) in ("['numpy', 'scipy']", "['numpy']")
