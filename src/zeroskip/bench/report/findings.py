"""The survey's findings that rows of a CPU or a GPU can decide: our figure beside the survey's, and a verdict.

The others, and what decides them, are in docs/findings.md.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..selection import CPU
from .data import ABOVE, BELOW, Point, Row, points
from .figures import WIDTH, share_of_peak

CONFIRMED, REFUTED, PARTLY, UNKNOWN = "confirmed", "refuted", "partly", "not testable with these rows"
# Fewer cells on a side decide nothing.
LEAST = 5


@dataclass(frozen=True)
class Finding:
    """One claim.

    Args:
        name: As docs/findings.md numbers it.
        claim: In our words, with the survey's figure.
        verdict: confirmed, refuted, partly or not testable with these rows.
        figure: Ours; empty where there is none.
    """

    name: str
    claim: str
    verdict: str
    figure: str


def findings(rows: Sequence[Row]) -> list[Finding]:
    """Each finding that rows of these devices may decide, in order."""
    found = []
    for gpu, checks in ((True, _ON_GPUS), (False, _ON_CPUS)):
        own = [row for row in rows if (row.get("device", CPU) != CPU) == gpu]
        if own:
            found += [check(points(own, "spmm"), points(own, "sddmm")) for check in checks]
    return sorted(found, key=lambda finding: int(finding.name[1:]))


def _h1(spmm: Sequence[Point], _: Sequence[Point]) -> Finding:
    claim = "On a GPU SpMM reaches about 2.5 % of peak."
    return _peaks("H1", claim, spmm, {"dlmc": 0.025, "graphs": 0.025})


def _h2(spmm: Sequence[Point], _: Sequence[Point]) -> Finding:
    claim = "On a GPU SpMM of graphs and of pruned layers is equally fast."
    weights, graphs = (_best([p for p in _at(spmm, WIDTH) if p.group == g]) for g in ("dlmc", "graphs"))
    return _ratio("H2", claim, weights, graphs, lambda r: CONFIRMED if 0.67 <= r <= 1.5 else REFUTED)


def _h9(spmm: Sequence[Point], _: Sequence[Point]) -> Finding:
    claim = "On a GPU SpMM of pruned layers is up to ten times as fast at width 1024 as at 32, of graphs no faster."
    gains = {}
    for group in ("dlmc", "graphs"):
        wide, narrow = (_best([p for p in _at(spmm, n) if p.group == group]) for n in (1024, 32))
        if min(len(wide), len(narrow)) >= LEAST:
            gains[group] = statistics.median(wide) / statistics.median(narrow)
    if len(gains) < 2:
        return Finding("H9", claim, UNKNOWN, "")
    as_claimed = [gains["dlmc"] >= 2, 0.67 <= gains["graphs"] <= 1.5]
    verdict = CONFIRMED if all(as_claimed) else PARTLY if any(as_claimed) else REFUTED
    return Finding("H9", claim, verdict, ", ".join(f"{group} {gain:.1f} times" for group, gain in gains.items()))


def _h11(_: Sequence[Point], sddmm: Sequence[Point]) -> Finding:
    claim = "On a GPU SDDMM reaches 2.3 % of peak, and is 1.44 times as fast on masks as on graphs."
    usual = _at(sddmm, WIDTH)
    masks, graphs = (_best([p for p in usual if p.group == g]) for g in ("masks", "graphs"))
    shares = [share for group in ("masks", "graphs") if (share := share_of_peak(usual, group)) is not None]
    if min(len(masks), len(graphs)) < LEAST or not shares:
        return Finding("H11", claim, UNKNOWN, "")
    ratio = statistics.median(masks) / statistics.median(graphs)
    as_claimed = [any(0.67 <= share / 0.023 <= 1.5 for share in shares), 1.1 <= ratio <= 2]
    verdict = CONFIRMED if all(as_claimed) else PARTLY if any(as_claimed) else REFUTED
    figure = f"masks {shares[0]:.1%}, graphs {shares[-1]:.1%} of peak; masks {ratio:.2f} times graphs"
    return Finding("H11", claim, verdict, figure)


def _h13(_: Sequence[Point], sddmm: Sequence[Point]) -> Finding:
    claim = "On a GPU the rate of SDDMM falls steeply above 80 % of zeros."
    here = [p for p in _at(sddmm, WIDTH) if p.group == "masks"]
    low, high = (_best([p for p in here if a <= p.first["sparsity"] < b]) for a, b in ((0.5, 0.8), (0.9, 1)))
    return _ratio("H13", claim, low, high, lambda r: CONFIRMED if r >= 1.5 else PARTLY if r >= 1.15 else REFUTED)


def _h3(spmm: Sequence[Point], _: Sequence[Point]) -> Finding:
    claim = "On a CPU SpMM of pruned layers is 1.5 times as fast as of graphs, within the last cache."
    weights, graphs = (
        _best([p for p in _at(spmm, WIDTH) if p.place == BELOW and p.group == g]) for g in ("dlmc", "graphs")
    )
    return _ratio("H3", claim, weights, graphs, lambda r: CONFIRMED if 1.2 <= r <= 2 else PARTLY if r > 1 else REFUTED)


def _h4(spmm: Sequence[Point], _: Sequence[Point]) -> Finding:
    claim = "On a CPU SpMM of graphs falls sixfold where the working set leaves the last cache."
    inside, outside = (
        _best([p for p in _at(spmm, WIDTH) if p.group == "graphs" and p.place == where]) for where in (BELOW, ABOVE)
    )
    return _ratio("H4", claim, inside, outside, lambda r: CONFIRMED if r >= 4 else PARTLY if r > 1.3 else REFUTED)


def _h5(spmm: Sequence[Point], _: Sequence[Point]) -> Finding:
    claim = "On a CPU SpMM reaches about 20 % of peak on pruned layers, 13 % on graphs."
    return _peaks("H5", claim, spmm, {"dlmc": 0.20, "graphs": 0.13})


def _h7(spmm: Sequence[Point], _: Sequence[Point]) -> Finding:
    claim = "On a CPU the rate of SpMM falls 5.5 times from 50 % of zeros to nearly 100 %, flat up to 80 %."
    here = [p for p in _at(spmm, WIDTH) if p.group == "dlmc"]
    low, flat, high = (
        _best([p for p in here if a <= p.first["sparsity"] < b]) for a, b in ((0.5, 0.7), (0.7, 0.8), (0.98, 1))
    )
    if min(len(low), len(high)) < LEAST:
        return Finding("H7", claim, UNKNOWN, "")
    ratio = statistics.median(low) / statistics.median(high)
    figure = f"{ratio:.1f} times from 50-70 % to 98 % and more"
    if len(flat) >= LEAST:
        figure += f"; {statistics.median(low) / statistics.median(flat):.2f} times to 70-80 %"
    return Finding("H7", claim, CONFIRMED if 3.5 <= ratio <= 8 else PARTLY if ratio > 1.3 else REFUTED, figure)


def _h8(spmm: Sequence[Point], _: Sequence[Point]) -> Finding:
    claim = "Throughput is not latency: with more zeros the rate falls and the time as well."
    here = [p for p in _at(spmm, WIDTH) if p.group == "dlmc" and p.ours is not None and p.first["m"] * p.first["k"] > 0]
    sides = [[p for p in here if a <= p.first["sparsity"] < b] for a, b in ((0.5, 0.8), (0.95, 1))]
    if min(map(len, sides)) < LEAST:
        return Finding("H8", claim, UNKNOWN, "")
    rates = [statistics.median(_best(side)) for side in sides]
    times = [
        statistics.median(float(p.ours["time_s"]) / (p.first["m"] * p.first["k"]) for p in side if p.ours)
        for side in sides
    ]
    good = rates[1] < rates[0] and times[1] < times[0]
    figure = (
        f"50-80 % to 95 % and more: rate {rates[1] / rates[0]:.2f}, time an element {times[1] / times[0]:.2f} times"
    )
    return Finding("H8", claim, CONFIRMED if good else REFUTED, figure)


def _h10(spmm: Sequence[Point], _: Sequence[Point]) -> Finding:
    claim = "On a CPU a width of 1024 is no faster than 128, within the last cache."
    wide, usual = (_best([p for p in _at(spmm, n) if p.place == BELOW]) for n in (1024, WIDTH))
    return _ratio("H10", claim, wide, usual, lambda r: CONFIRMED if 0.85 <= r <= 1.18 else REFUTED)


def _h12(_: Sequence[Point], sddmm: Sequence[Point]) -> Finding:
    claim = (
        "On a CPU SDDMM reaches 2.3 % of peak on graphs and 1 % on masks (its operands were swapped: docs/findings.md)."
    )
    return _peaks("H12", claim, sddmm, {"graphs": 0.023, "masks": 0.01})


def _h14(_: Sequence[Point], sddmm: Sequence[Point]) -> Finding:
    claim = "On a CPU the rate of SDDMM on masks falls as the depth grows, within the last cache."
    deep, shallow = (_best([p for p in _at(sddmm, n) if p.group == "masks" and p.place == BELOW]) for n in (1024, 32))
    return _ratio("H14", claim, deep, shallow, lambda r: CONFIRMED if r < 0.85 else REFUTED)


def _at(here: Sequence[Point], n: int) -> list[Point]:
    return [point for point in here if point.first["n"] == n]


def _best(here: Sequence[Point]) -> list[float]:
    return [float(p.best["gflops"]) for p in here if p.best is not None]


def _ratio(name: str, claim: str, over: list[float], under: list[float], verdict: Callable[[float], str]) -> Finding:
    if min(len(over), len(under)) < LEAST:
        return Finding(name, claim, UNKNOWN, "")
    ratio = statistics.median(over) / statistics.median(under)
    return Finding(name, claim, verdict(ratio), f"{ratio:.2f} times (medians of {len(over)} and {len(under)} cells)")


def _peaks(name: str, claim: str, here: Sequence[Point], claimed: dict[str, float]) -> Finding:
    usual = _at(here, WIDTH)
    enough = [group for group in claimed if sum(p.group == group for p in usual) >= LEAST]
    shares = {group: share for group in enough if (share := share_of_peak(usual, group)) is not None}
    if len(shares) < len(claimed):
        return Finding(name, claim, UNKNOWN, "")
    near = [0.67 <= shares[group] / claimed[group] <= 1.5 for group in claimed]
    verdict = CONFIRMED if all(near) else PARTLY if any(near) else REFUTED
    return Finding(name, claim, verdict, ", ".join(f"{group} {share:.1%}" for group, share in shares.items()))


_ON_CPUS = (_h3, _h4, _h5, _h7, _h8, _h10, _h12, _h14)
_ON_GPUS = (_h1, _h2, _h9, _h11, _h13)
