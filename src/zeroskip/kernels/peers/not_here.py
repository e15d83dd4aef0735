"""Rivals that cannot be called for one product, or not in this process: listed with the reason, never left out."""

from __future__ import annotations

from dataclasses import dataclass

from ..._errors import KernelUnavailable
from ...formats import SparseMatrix
from .._base import KernelInfo, Prepared, registry


@dataclass(frozen=True)
class NotHere(KernelInfo):
    reason: str = ""

    def why_not(self) -> str | None:
        return self.reason

    def prepare(self, a: SparseMatrix) -> Prepared:
        raise KernelUnavailable(f"{self.name}: {self.reason}; choose another kernel.")


_REASONS = {
    # Its import fails beside onnx 1.23: sparsezoo asks for onnx.mapping, which is gone (1.8.0, 2026-11).
    "deepsparse": (
        "it needs NumPy 1 and onnx below 1.15, so it runs in a process of its own: benchmarks/deepsparse_mlp.py and "
        "`zeroskip bench embed` measure it"
    ),
    "litert": (
        "it lays a sparse constant out in full (0 times infinity is NaN), XNNPACK below it reads one past its end "
        "(2.3.0): sparse weights are for 1 x 1 convolutions of whole networks; its product is spmm_dense_f32_litert"
    ),
    "libxsmm": "there is no package of it on PyPI; build it and write a plug-in (docs/rivals.md)",
}

for _origin, _reason in _REASONS.items():
    _name = f"spmm_csr_f32_{_origin}"
    registry.add(_name, NotHere(_name, "csr", "float32", _origin, _origin, reason=_reason))
