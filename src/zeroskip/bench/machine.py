"""What a measurement ran on: the processor, the versions, the commit. Nothing here imports a heavy library."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from .. import __version__
from .._memory import total_bytes
from ..kernels import cpu, num_threads

PACKAGES = (
    "numpy",
    "torch",
    "onnxruntime",
    "onnx",
    "openvino",
    "ai-edge-litert",
    "nncf",
    "scipy",
    "mkl",
    "aoclda",
    "sparse",
    "suitesparse-graphblas",
    "cupy-cuda12x",
    "transformers",
    "sentence-transformers",
    "tokenizers",
    "safetensors",
    "gguf",
)


@cache
def machine() -> dict[str, Any]:
    """The processor, its caches and instruction sets, memory and system, as JSON-able values."""
    info = cpu.cpu_info()
    return {
        "cpu": _cpu_name(str(info.get("model_name") or "")),
        "arch": info["arch"],
        "cores": num_cores(),
        "isas": list(info["isas"]),
        "isa": info["selected"],
        "l1d_bytes": _cache_bytes(1) or int(info["l1d_bytes"]),
        "l2_bytes": _cache_bytes(2) or int(info["l2_bytes"]),
        "l3_bytes": _cache_bytes(3) or int(info["l3_bytes"]),
        "memory_bytes": total_bytes() or 0,
        "system": f"{platform.system()} {platform.release()}",
    }


@cache
def versions() -> dict[str, str | None]:
    """Versions of Python, of zeroskip, and of what it is compared with; None where not installed."""
    found: dict[str, str | None] = {"python": platform.python_version(), "zeroskip": __version__}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


@cache
def commit() -> str | None:
    """The commit of the checkout that zeroskip is imported from, `+` behind it if files differ; None outside of one."""
    root = Path(__file__).resolve().parents[3]
    if not (root / ".git").exists():
        return None
    try:
        name = _git(root, "rev-parse", "--short=12", "HEAD")
        return name + ("+" if _git(root, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(root: Path, *args: str) -> str:
    done = subprocess.run(["git", "-C", str(root), *args], capture_output=True, text=True, timeout=10, check=True)
    return done.stdout.strip()


def num_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def resident_bytes() -> int:
    """Memory of this process that is in RAM now, 0 where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError, IndexError):
        return 0


def last_level_cache_bytes() -> int:
    """The largest cache that the processor reports, 32 MiB if it reports none."""
    info = machine()
    return max(info["l3_bytes"], info["l2_bytes"], 0) or 32 * 2**20


def claimed_cache_bytes() -> int:
    """The last cache by the processor's own account, 0 if it gives none.

    Of all its parts together, so it may be more than a core can use; but where a virtual machine's system said 32 MiB
    and its processor 256, weights of 64 and 128 MiB did come from a cache (Zen 3, 2026-11).
    """
    return int(cpu.cpu_info().get("l3_bytes") or 0)


def use_threads(count: int | None) -> int:
    """Give every engine in this process the same number of threads.

    Args:
        count: None leaves ZEROSKIP_NUM_THREADS, or all cores.
    Returns:
        The number.
    """
    threads = num_threads() if count is None else count
    os.environ["ZEROSKIP_NUM_THREADS"] = str(threads)  # what is made later (MKL, ONNX Runtime sessions) asks for it
    cpu.set_num_threads(threads)
    _blas_threads(threads)
    if "torch" in sys.modules or count is not None:
        _torch_threads(threads)
    return threads


def _torch_threads(threads: int) -> None:
    try:
        import torch
    except ImportError:
        return
    torch.set_num_threads(threads)


def _blas_threads(threads: int) -> None:
    """NumPy's BLAS; without threadpoolctl it keeps its own default, all cores."""
    try:
        import threadpoolctl  # type: ignore[import-untyped, unused-ignore]
    except ImportError:
        return
    threadpoolctl.threadpool_limits(limits=threads, user_api="blas")


def _cache_bytes(level: int) -> int:
    """A cache of the first core, 0 where the system does not say.

    A processor counts the L3 of all its parts, of which a core uses one: the system's figure is that one.
    """
    for index in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"):
        try:
            kind = (index / "type").read_text().strip()
            if kind != "Instruction" and int((index / "level").read_text()) == level:
                text = (index / "size").read_text().strip()
                return int(text.rstrip("KM")) << {"K": 10, "M": 20}.get(text[-1], 0)
        except (OSError, ValueError):
            continue
    return 0


def _cpu_name(found: str) -> str:
    """The processor's name; the system's own where the native module has none."""
    if found:
        return found
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def describe(threads: int) -> str:
    """One line: `AMD EPYC (2 cores, L3 32 MiB, avx2), 2 threads`."""
    info = machine()
    cache_text = f", L3 {info['l3_bytes'] >> 20} MiB" if info["l3_bytes"] else ""
    return f"{info['cpu']} ({info['cores']} cores{cache_text}, {info['isa']}), {threads} thread{'s' * (threads != 1)}"
