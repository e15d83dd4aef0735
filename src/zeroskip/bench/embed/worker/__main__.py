"""`python .../worker`: runs this folder as a package of its own, without the packages around it."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

NAME = "zeroskip_embed_worker"


def main() -> None:
    """Import the folder under its own name and serve; files beside it must not shadow the packages of engines."""
    folder = Path(__file__).resolve().parent
    sys.path = [entry for entry in sys.path if not entry or Path(entry).resolve() != folder]
    spec = importlib.util.spec_from_file_location(
        NAME, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None
    assert spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules[NAME] = package
    spec.loader.exec_module(package)
    importlib.import_module(f"{NAME}.loop").serve()


if __name__ == "__main__":
    main()
