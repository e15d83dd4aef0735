"""What a kind of mask is: an object in `registry`, one file each in this package."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from ..._errors import InvalidArgument
from ..._registry import Registry
from ...formats import BSR
from ...ops.rules import Rule
from ._grid import Grid, Mask
from ._rules import Family, family_entries


class MaskMethod(ABC):
    """A mask that follows from its sizes: known before any input is.

    `queries` x `keys` is its shape; query i stands at key i + keys - queries. With `block` > 1 everything counts
    blocks, which are whole: sizes, entries, and what `causal` cuts. A block on the diagonal then stays as it is.

    A `sparsity` is exact: `round((1 - sparsity) * queries * keys)` entries are there (of blocks: the same over the grid
    of blocks), whatever `causal` has cut from the rest.
    """

    name: str
    summary: str
    ruled: bool = False  # whether `rule` can say it without entries

    @abstractmethod
    def make(
        self,
        queries: int,
        keys: int,
        *,
        sparsity: float | None = None,
        seed: int = 0,
        causal: bool = False,
        block: int = 1,
    ) -> Mask:
        """CSR of ones, or BSR where `block` is more than 1."""

    @abstractmethod
    def entries(self, queries: int, keys: int, *, sparsity: float, causal: bool = False, block: int = 1) -> int:
        """How many entries (blocks) `make` would give, without making them.

        Raises:
            InvalidArgument: If this kind cannot have so many or so few; as `make`.
        """

    def rule(self, queries: int, keys: int, *, sparsity: float | None = None, causal: bool = False) -> Rule:
        """The mask in a few numbers; of a sparsity, the largest that has no more entries than it leaves.

        Raises:
            InvalidArgument: If this kind is no rule.
        """
        raise InvalidArgument(f"{self.name} mask: it follows from no rule; use make, or one of: {', '.join(ruled())}.")


class Growing(MaskMethod):
    """A kind whose masks are rules that grow with one number, and for a sparsity what lies between two of them."""

    ruled = True

    @abstractmethod
    def family(self, grid: Grid, causal: bool) -> Family:
        """The rules with the other numbers at their defaults."""

    def entries(self, queries: int, keys: int, *, sparsity: float, causal: bool = False, block: int = 1) -> int:
        """See `MaskMethod`."""
        grid = Grid.of(f"{self.name} mask", queries, keys, block)
        return family_entries(self.family(grid, causal), grid, sparsity)


class Selector(ABC):
    """A mask of blocks that depends on the queries and keys themselves."""

    name: str
    summary: str

    @abstractmethod
    def select(self, q: Any, k: Any, *, block: int = 64, causal: bool = False) -> BSR | list[BSR]:
        """The blocks worth computing.

        Args:
            q: Queries (n, d), or (heads, n, d); NumPy, torch on the CPU, or any DLPack array.
            k: Keys (m, d), or (key heads, m, d): each is shared by as many query heads as follow in order.
            block: Queries and keys in a block; divides n and m.
            causal: Keep no block that lies wholly behind its queries.
        Returns:
            BSR of blocks full of ones; a list of them, one for each head, where q has heads.
        """


registry: Registry[MaskMethod] = Registry("mask", __package__)
selectors: Registry[Selector] = Registry("mask selector", __package__)


def ruled() -> list[str]:
    """The kinds that are rules."""
    return [method.name for method in registry if method.ruled]
