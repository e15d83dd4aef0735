"""A torch Linear whose weight is sparse and packed for this processor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from .._errors import DtypeError, InvalidArgument, ShapeError
from ..formats import Bitmask, SparseMatrix
from ..kernels import ACTIVATIONS, Prepared, registry

Choices = Sequence[tuple[int | None, Prepared]]


class SparseLinear(torch.nn.Module):
    """`y = activation(x @ W.T + bias)` for inference; called like `torch.nn.Linear`.

    The packed weight is no parameter: it is not in the state dict, and cannot be trained or moved to another device.

    Args:
        choices: One packed weight a range of rows of x: (most rows that use it, packed), ascending, the last one None.
        bias: (out_features,) or None.
        activation: None or one of relu, gelu, gelu_tanh, silu, tanh.
    """

    def __init__(self, choices: Choices, bias: torch.Tensor | None = None, *, activation: str | None = None) -> None:
        super().__init__()
        self._choices = tuple(choices)
        _check_choices(self._choices)
        if activation is not None and activation not in ACTIVATIONS:
            raise InvalidArgument(
                f"SparseLinear: activation is {activation!r}; choose None or one of: {', '.join(ACTIVATIONS)}."
            )
        self.out_features, self.in_features = self._choices[0][1].shape
        if bias is not None and tuple(bias.shape) != (self.out_features,):
            raise ShapeError(
                f"SparseLinear: bias has shape {tuple(bias.shape)} but the weight has {self.out_features} rows; "
                f"pass a bias of {self.out_features}."
            )
        self.activation = activation
        self.bias: torch.Tensor | None
        self.register_buffer("bias", None if bias is None else bias.detach().to("cpu", torch.float32).contiguous())

    @classmethod
    def from_linear(
        cls, linear: torch.nn.Linear, *, dtype: str = "float32", kernel: str = "auto", n: int = 128
    ) -> SparseLinear:
        """Pack the non-zero weights of a Linear.

        Args:
            linear: The layer; it is not changed.
            dtype: Value type to store: float32, bfloat16 or float16.
            kernel: A kernel's name, or "auto": measured here, dense among the candidates.
            n: Rows of x to choose the kernel for.
        """
        return cls.from_matrix(
            Bitmask.from_dense(linear.weight.detach(), dtype=dtype), bias=linear.bias, kernel=kernel, n=n
        )

    @classmethod
    def from_matrix(
        cls, a: SparseMatrix, *, bias: torch.Tensor | None = None, kernel: str = "auto", n: int = 128
    ) -> SparseLinear:
        """Pack a sparse matrix (out_features, in_features) of any format; arguments as in `from_linear`."""
        from .. import ops

        name = ops.plan("spmm", a, n=n).kernel if kernel == "auto" else kernel
        return cls([(None, registry.get(name).prepare(a))], bias)

    @property
    def kernel(self) -> str:
        """The kernels in use: one name, or several by batch size."""
        return ", ".join(dict.fromkeys(packed.kernel for _, packed in self._choices))

    @property
    def weight_nbytes(self) -> int:
        """Bytes of all packed weights."""
        return sum({id(packed): packed.nbytes for _, packed in self._choices}.values())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply the layer to the last dimension of `x`; computes in float32 and returns the dtype of `x`."""
        if x.requires_grad and torch.is_grad_enabled():
            raise InvalidArgument(
                "SparseLinear: x requires grad, but the layer is for inference and has no gradient; "
                "call it under torch.inference_mode(), or keep the Linear for training."
            )
        if not x.is_floating_point():
            raise DtypeError(f"SparseLinear: x has dtype {x.dtype}, it must be floating; convert it to float32.")
        if x.device.type != "cpu":
            raise InvalidArgument(f"SparseLinear: x is on {x.device}, the kernels run on the CPU; pass x.cpu().")
        if x.ndim < 1 or x.shape[-1] != self.in_features:
            raise ShapeError(
                f"SparseLinear: x has shape {tuple(x.shape)} but the weight has {self.in_features} columns; "
                f"pass x with {self.in_features} in its last dimension."
            )
        rows = x.detach().to(torch.float32).reshape(-1, self.in_features).contiguous()
        out = torch.empty((rows.shape[0], self.out_features), dtype=torch.float32)
        if rows.shape[0]:
            bias = None if self.bias is None else self.bias.numpy()
            packed = self._packed_for(rows.shape[0])
            packed.run(rows.numpy(), out.numpy(), bias=bias, activation=self.activation, transposed=True)
        return out.reshape(*x.shape[:-1], self.out_features).to(x.dtype)

    def extra_repr(self) -> str:
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}, "
            f"kernel={self.kernel}"
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> SparseLinear:
        """Packed weights never change, so copies share them."""
        bias = None if self.bias is None else self.bias.clone()
        return SparseLinear(self._choices, bias, activation=self.activation)

    def _packed_for(self, rows: int) -> Prepared:
        for most, packed in self._choices:
            if most is None or rows <= most:
                return packed
        return self._choices[-1][1]


def _check_choices(choices: tuple[tuple[int | None, Prepared], ...]) -> None:
    limits = [np.inf if most is None else most for most, _ in choices]
    if not choices or limits != sorted(limits) or limits[-1] != np.inf:
        raise InvalidArgument(
            f"SparseLinear: choices end at rows {limits}, they must ascend and the last must be None; order them."
        )
    shapes = {packed.shape for _, packed in choices}
    if len(shapes) != 1:
        raise ShapeError(f"SparseLinear: choices have shapes {sorted(shapes)}, they must be one matrix; pack the same.")
