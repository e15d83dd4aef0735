"""A suite over a Ray cluster: one task a matrix, rows tagged with the machine that measured them.

A task gets a name and finds the matrix where it runs: every machine needs the data, as every machine needs zeroskip.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from .. import datasets
from .._errors import InvalidArgument, MissingDependency
from ..kernels import num_threads
from . import machine
from .rows import Row
from .suites import Suite

if TYPE_CHECKING:
    from .run import Item, RunSettings

# Tasks that wait at a machine beside the one that runs, so that it never idles.
AHEAD = 2


def measured(items: Sequence[Item], settings: RunSettings) -> Iterator[tuple[Item, list[list[Row]], list[str]]]:
    """Each item with its rows, cell by cell, and what was left out; as tasks end, so in another order.

    A task that raises, or whose worker dies, leaves its item out: the same command tries it again.

    Raises:
        MissingDependency: If Ray is not installed.
    """
    try:
        import ray
    except ImportError as error:
        raise MissingDependency(f"bench run: --ray needs Ray ({error}); pip install ray.") from error
    if not ray.is_initialized():
        ray.init(ignore_reinit_error=True, log_to_driver=False)
    threads = settings.threads or num_threads()
    largest = max((int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]), default=0)
    if threads > largest:
        raise InvalidArgument(
            f"bench run: threads is {threads}, but no machine of the cluster has more than {largest} processors; "
            f"pass --threads {max(1, largest)}."
        )
    task = ray.remote(num_cpus=threads, max_retries=0)(measure)
    waiting, start = list(reversed(items)), time.perf_counter()
    most = max(1, int(ray.cluster_resources().get("CPU", 1)) // threads) * AHEAD
    running: dict[Any, Item] = {}
    while waiting or running:
        over = settings.budget_s is not None and time.perf_counter() - start >= settings.budget_s
        if over:
            waiting.clear()
        while waiting and len(running) < most:
            item = waiting.pop()
            place = settings.suite.sets.index(item.set)
            running[task.remote(settings.suite, place, item.entry.name, item.ns, settings.seed, threads)] = item
        if running:
            done, _ = ray.wait(list(running), num_returns=1)
            item = running.pop(done[0])
            try:
                cells, said = ray.get(done[0])
            except ray.exceptions.RayError as error:  # its worker died, or it raised
                lines = [line.strip() for line in str(error).splitlines() if line.strip()]
                cells, said = [], [f"left out: {item.entry.name}: {[type(error).__name__, *lines][-1]}"]
            yield item, cells, said


def measure(
    suite: Suite, place: int, name: str, ns: tuple[int, ...], seed: int, threads: int
) -> tuple[list[list[Row]], list[str]]:
    """The rows of one matrix, and what was left out of it; run by a worker."""
    from . import run

    own = suite.sets[place]
    entry = next(entry for entry in datasets.registry.get(own.dataset).entries() if entry.name == name)
    said: list[str] = []
    machine.use_threads(threads)
    common = {**run.common_fields(suite, threads, None), "node": platform.node()}
    cells = list(run.measure(run.Item(own, entry, ns), seed, threads, own.seconds, common, said.append))
    return cells, said
