"""Check what a wheel or an sdist holds: `python tools/check_wheel.py FILE...`; a line a file, exit 1 on a fault.

A wheel must carry the package with its native module, `py.typed`, the licence and the command, and nothing else; an
sdist all that building takes.
"""

from __future__ import annotations

import re
import sys
import tarfile
import zipfile
from pathlib import Path

WHEEL_NEEDS: tuple[str, ...] = (
    r"zeroskip/__init__\.py",
    r"zeroskip/py\.typed",
    r"zeroskip/_native\.(abi3|cpython-\d+\S*|cp\d+\S*)?\.?(so|pyd)",
    r"zeroskip-[^/]+\.dist-info/licenses/LICENSE",
    r"zeroskip-[^/]+\.dist-info/entry_points\.txt",
)
SDIST_NEEDS: tuple[str, ...] = (
    r"[^/]+/pyproject\.toml",
    r"[^/]+/CMakeLists\.txt",
    r"[^/]+/LICENSE",
    r"[^/]+/README\.md",
    r"[^/]+/src/zeroskip/__init__\.py",
    r"[^/]+/native/kernels/kernels\.inc",
    r"[^/]+/native/bindings/module\.cc",
    r"[^/]+/native/include/zeroskip/types\.h",
)


def faults(path: Path) -> list[str]:
    """What is wrong with a wheel or an sdist, a line each."""
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        alien = [name for name in names if not re.match(r"zeroskip/|zeroskip-[^/]+\.dist-info/", name)]
        alien += [name for name in names if re.search(r"(^|/)(tests?_|conftest)|__pycache__|\.tmp$", name)]
        needs = WHEEL_NEEDS
        native = [name for name in names if re.fullmatch(WHEEL_NEEDS[2], name)]
        if len(native) > 1:
            alien += native
        if (
            re.search(r"-cp312-abi3-", path.name)
            and native != ["zeroskip/_native.abi3.so"]
            and path.name.count("linux")
        ):
            alien += native
    else:
        with tarfile.open(path) as archive:
            names = archive.getnames()
        alien = [name for name in names if re.search(r"\.(so|pyd|tmp|o|a)$|__pycache__|/build/", name)]
        needs = SDIST_NEEDS
    missing = [need for need in needs if not any(re.fullmatch(need, name) for name in names)]
    return [f"lacks {need}" for need in missing] + [f"should not hold {name}" for name in alien]


def main(arguments: list[str]) -> int:
    """Check every file and say what was found."""
    if not arguments:
        print("usage: python tools/check_wheel.py FILE...", file=sys.stderr)
        return 2
    bad = 0
    for argument in arguments:
        found = faults(Path(argument))
        bad += bool(found)
        print(f"check_wheel: {Path(argument).name}: " + ("; ".join(found) or "as it should be"))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
