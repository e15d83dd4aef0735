"""Generated graphs with the rows and entries of the graphs that the survey names (its tables 2 and 4).

They stand in for the real ones where there is no network: the same size, a structure of the same kind, other edges.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from . import _generate
from ._base import Entry, generator, registry
from ._files import Remote
from .io.smtx import Structure

Make = Callable[..., Structure]

SMALL = 6_000_000


@dataclass(frozen=True)
class Like:
    """A graph of the survey: its name, rows, entries (of undirected ones both directions), and what resembles it."""

    name: str
    rows: int
    nnz: int
    make: Make
    mean_nodes: float | None = None


_power, _rmat, _lattice, _blocks = _generate.power_law, _generate.rmat, _generate.lattice, _generate.communities
_many = _generate.small_graphs

# Table 4 of the survey, in its order; then those of its table 2 that are not in it, twice its undirected edges.
GRAPHS = (
    Like("citeseer", 3_327, 9_340, _power),
    Like("cora", 2_708, 10_858, _power),
    Like("pubmed", 19_717, 88_673, _power),
    Like("PROTEINS", 43_471, 162_088, _many, 39.1),
    Like("ogbl-ddi", 4_267, 1_067_911, _power),
    Like("ogbl-collab", 235_868, 967_632, _blocks),
    Like("ogbn-arxiv", 169_343, 1_166_243, _rmat),
    Like("harvard", 15_126, 1_649_234, _power),
    Like("com-Amazon", 334_863, 1_851_744, _blocks),
    Like("REDDIT-BINARY", 859_254, 1_991_016, _many, 429.6),
    Like("amazon0505", 410_236, 3_356_824, _blocks),
    Like("OVCAR-8H", 1_890_931, 3_946_402, _many, 46.67),
    Like("wiki-Talk", 2_394_385, 5_021_410, _rmat),
    Like("roadNet-CA", 1_971_281, 5_533_214, _lattice),
    Like("com-Youtube", 1_134_890, 5_975_248, _power),
    Like("web-BerkStan", 685_230, 7_600_595, _rmat),
    Like("sx-stackoverflow", 2_601_977, 36_233_450, _rmat),
    Like("ogbn-proteins", 132_534, 39_561_252, _blocks),
    Like("artist", 50_515, 1_638_396, _power),
    Like("Reddit", 232_965, 114_615_892, _blocks),
    Like("AmazonProducts", 1_569_960, 264_339_468, _rmat),
    Like("ogbn-mag", 1_939_743, 21_111_007, _rmat),
    Like("com-Orkut", 3_072_441, 234_370_166, _power),
    Like("Flickr", 89_250, 899_756, _power),
    Like("ogbl-ppa", 576_289, 60_652_546, _blocks),
    Like("ogbn-products", 2_449_029, 123_718_280, _blocks),
)


def _load(like: Like, name: str, seed: int) -> Structure:
    settings: dict[str, Any] = {} if like.mean_nodes is None else {"mean_nodes": like.mean_nodes}
    return like.make(like.rows, like.nnz, generator(name, seed), **settings)


@dataclass(frozen=True)
class Graphs:
    """See the module; the seed draws the edges, too.

    Args:
        large: Those of more than `SMALL` entries, or the others.
    """

    name: str
    title: str
    large: bool
    kind: str = "graph"
    licence: str = "CC0-1.0"
    source: str | None = None
    files: tuple[Remote, ...] = ()

    def why_not(self) -> str | None:
        """See `Dataset`."""
        return None

    def entries(self) -> list[Entry]:
        """See `Dataset`. The method is the generator."""
        return [self._entry(like) for like in GRAPHS if (like.nnz > SMALL) == self.large]

    def _entry(self, like: Like) -> Entry:
        method = like.make.__name__
        name = f"{method}/{like.name}"
        load = partial(_load, like, name)
        return Entry(name, self.name, self.kind, load, method=method, shape=(like.rows, like.rows), nnz=like.nnz)


registry.add(
    "graphs", Graphs("graphs", "generated graphs of the sizes in the survey, up to six million entries", False)
)
registry.add("graphs-large", Graphs("graphs-large", "the same with up to 264 million entries", True))
