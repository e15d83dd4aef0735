"""Print what zeroskip found on this machine and what it chose, and warn of what slows it down or distorts timings."""

from __future__ import annotations

import argparse
import os
from typing import Any

from ._console import Console

EPILOG = """\
examples:
  zeroskip doctor
  zeroskip doctor --json > machine.json                      to put into a bug report
"""

VARIABLES = ("ZEROSKIP_ISA", "ZEROSKIP_NUM_THREADS", "ZEROSKIP_DATA_DIR", "ZEROSKIP_CACHE_DIR", "OMP_NUM_THREADS")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(needs_nothing=True)


def run(args: argparse.Namespace, console: Console) -> int:
    report = examine()
    for line in _lines(report):
        console.show(line)
    console.emit(report)
    return 0 if report["native"] is None else 1


def examine() -> dict[str, Any]:
    """Everything that doctor knows, as JSON-able values."""
    from .. import __version__

    report: dict[str, Any] = {"zeroskip": __version__, "native": None}
    try:
        from ..bench import machine
        from ..kernels import cpu
    except ImportError as error:
        report["native"] = str(error)
        report["warnings"] = [f"the native module cannot be imported ({error}); build or install zeroskip again."]
        return report
    report["machine"] = machine.machine()
    report["threads"] = {"zeroskip": cpu.get_num_threads(), **_other_threads()}
    report["versions"] = machine.versions()
    report["commit"] = machine.commit()
    report["kernels"] = _kernel_counts()
    report["peers"] = _peers()
    report["cache"] = _cache()
    report["environment"] = {name: os.environ.get(name) for name in VARIABLES}
    report["warnings"] = _warnings(report)
    return report


def _other_threads() -> dict[str, int | None]:
    try:
        import torch
    except ImportError:
        return {"torch": None}
    return {"torch": torch.get_num_threads()}


def _cache() -> dict[str, Any]:
    """Where measurements are kept, and how much of them there is."""
    from ..ops import _cache as cache

    return cache.describe()


def _kernel_counts() -> dict[str, dict[str, int]]:
    from ..kernels import registry

    counts: dict[str, dict[str, int]] = {}
    for kernel in registry:
        if kernel.origin == "native":
            found = counts.setdefault(kernel.isa, {"usable": 0, "not_usable": 0})
            found["usable" if kernel.why_not() is None else "not_usable"] += 1
    return counts


def _peers() -> dict[str, str | None]:
    """Each rival library: None if it can be used, else the reason."""
    from ..kernels import OURS, registry

    peers: dict[str, str | None] = {kernel.origin: kernel.why_not() for kernel in registry if kernel.origin not in OURS}
    return {**peers, **dict(registry.unavailable)}


def _warnings(report: dict[str, Any]) -> list[str]:
    from ..bench.machine import num_cores

    env, found = os.environ, []
    machine, threads = report["machine"], report["threads"]
    for name in (
        "OPENBLAS_CORETYPE",
        "MKL_DEBUG_CPU_TYPE",
        "MKL_ENABLE_INSTRUCTIONS",
        "ATEN_CPU_CAPABILITY",
        "ONEDNN_MAX_CPU_ISA",
    ):
        if name in env:
            found.append(
                f"{name} is set to {env[name]!r}: a dense rival runs code for another processor; unset it to compare."
            )
    if machine["isa"] != machine["isas"][-1]:
        found.append(
            f"ZEROSKIP_ISA restricts to {machine['isa']}, but {machine['isas'][-1]} was found; unset it for full speed."
        )
    found += [f"AMX cannot be used: {reason}." for reason in _denied()]
    if machine["isa"] == "scalar":
        found.append("only scalar kernels can be used here: expect dense to win almost everywhere.")
    cores = num_cores()
    if threads["zeroskip"] > cores:
        found.append(f"{threads['zeroskip']} threads but {cores} cores: threads will wait for each other.")
    if threads.get("torch") not in (None, threads["zeroskip"]):
        found.append(
            f"torch uses {threads['torch']} threads and zeroskip {threads['zeroskip']}; "
            "`zeroskip bench` and `demo` give both the same, your own timings may not."
        )
    load = _load()
    if load > 0.5 * cores:
        found.append(f"the load average is {load:.1f} on {cores} cores: timings taken now will be noisy.")
    folder = env.get("ZEROSKIP_DATA_DIR")
    if folder and not os.path.isdir(folder):
        found.append(f"ZEROSKIP_DATA_DIR is {folder!r}, which is no folder; tests and suites that need data will skip.")
    return found


def _denied() -> set[str]:
    """Reasons why kernels cannot run that are no matter of the processor: what the system does not permit."""
    from ..kernels import registry

    reasons = {kernel.why_not() for kernel in registry if kernel.origin == "native"}
    return {reason for reason in reasons if reason and "does not permit" in reason}


def _load() -> float:
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):
        return 0.0


def _lines(report: dict[str, Any]) -> list[str]:
    lines = [f"zeroskip {report['zeroskip']}" + (f" (commit {report['commit']})" if report.get("commit") else "")]
    if report["native"] is None:
        lines += _machine_lines(report)
    lines += ["", "warnings" if report["warnings"] else "no warnings"]
    return lines + [f"  ! {text}" for text in report["warnings"]]


def _machine_lines(report: dict[str, Any]) -> list[str]:
    machine, versions = report["machine"], report["versions"]
    caches = ", ".join(
        f"{name} {_size(machine[key])}" for name, key in (("L1d", "l1d_bytes"), ("L2", "l2_bytes"), ("L3", "l3_bytes"))
    )
    lines = [
        f"  processor   {machine['cpu']}, {machine['arch']}, {machine['cores']} cores",
        f"  memory      {_size(machine['memory_bytes'])}",
        f"  caches      {caches}",
        f"  found       {', '.join(machine['isas'])}",
        f"  chosen      {machine['isa']}",
        "  threads     " + ", ".join(f"{name} {count or 'not installed'}" for name, count in report["threads"].items()),
        "  kernels     " + "; ".join(
            f"{isa}: {count['usable']} usable" + (f", {count['not_usable']} not" if count["not_usable"] else "")
            for isa, count in report["kernels"].items()
        ),
        f"  cache       {_cache_line(report['cache'])}",
        f"  system      {machine['system']}",
        "",
        "versions",
    ]  # fmt: skip
    lines += [f"  {name:<22}{version or 'not installed'}" for name, version in versions.items()]
    lines += ["", "rival libraries"]
    lines += [f"  {name:<22}{'usable' if reason is None else reason}" for name, reason in report["peers"].items()]
    lines += ["", "environment"]
    lines += [
        f"  {name:<22}{value if value is not None else 'not set'}" for name, value in report["environment"].items()
    ]
    return lines


def _cache_line(cache: dict[str, Any]) -> str:
    if cache["folder"] is None:
        return "switched off"
    count, size = cache["entries"], _size(cache["nbytes"])
    return f"{cache['folder']}, {count} measurement{'s' * (count != 1)}, {size}" if count else cache["folder"]


def _size(count: int) -> str:
    if count <= 0:
        return "unknown"
    for unit, shift in (("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if count >= 1 << shift:
            return f"{count / (1 << shift):.3g} {unit}"
    return f"{count} B"
