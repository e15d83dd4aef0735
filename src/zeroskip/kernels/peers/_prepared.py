"""What the packed matrices of all peers share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from .._base import Float32


class PeerPrepared(ABC):
    """A `Prepared` that leaves the product to `compute`, which has the same arguments in the same order."""

    def run(
        self,
        x: Float32,
        out: Float32,
        *,
        bias: Float32 | None = None,
        activation: str | None = None,
        transposed: bool = False,
    ) -> None:
        self.compute(x, out, bias, activation, transposed)

    @abstractmethod
    def compute(self, x: Float32, out: Float32, bias: Float32 | None, activation: str | None, transposed: bool) -> None:
        """out = activation(A @ x + bias); `Prepared.run` has the layouts."""


@dataclass(frozen=True)
class DensePeer(PeerPrepared):
    """All entries of the matrix, as an array or a tensor."""

    kernel: str
    weight: Any

    @property
    def shape(self) -> tuple[int, int]:
        rows, columns = self.weight.shape
        return rows, columns

    @property
    def nbytes(self) -> int:
        return int(self.weight.nbytes)
