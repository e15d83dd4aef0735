"""The house itself: packaging, the gates of CI and whether they can fail, imports, and what the documents promise."""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import zeroskip

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = Path(zeroskip.__file__).parent
COMMANDS = (
    'pip install -c constraints.txt ".[demo]" && zeroskip demo',
    'pip install -c constraints.txt ".[test]" && pytest',
)
# A file outside a checkout (an installed package run with its own tests) has no CI to check.
pytestmark = pytest.mark.skipif(not (ROOT / "pyproject.toml").is_file(), reason="runs from a checkout only")


def pyproject() -> dict[str, Any]:
    toml = pytest.importorskip("tomllib" if sys.version_info >= (3, 11) else "tomli")
    with open(ROOT / "pyproject.toml", "rb") as file:
        found: dict[str, Any] = toml.load(file)
    return found


def run(*command: str | Path, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(word) for word in command], cwd=cwd, capture_output=True, text=True, check=False)


def tracked(*patterns: str) -> list[Path]:
    listing = run("git", "ls-files", *patterns)
    if listing.returncode != 0:
        pytest.skip("not a git checkout")
    return [path for line in listing.stdout.split("\n") if line and (path := ROOT / line).is_file()]


def tool(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# ---- the commands of the README, and CI ----


@pytest.mark.parametrize("command", COMMANDS)
def test_ci_runs_the_commands_of_the_readme_to_the_letter(command: str) -> None:
    assert command in (ROOT / "README.md").read_text().split("\n")
    assert f"  {command}" in (ROOT / ".ci" / "run").read_text().split("\n")


def test_ci_script_parses_and_names_only_stages_it_has() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    assert run("bash", "-n", ".ci/run").returncode == 0
    listed = re.search(r"stages=\(([a-z ]+)\)", script)
    assert listed is not None
    for name in listed[1].split():
        assert f"stage_{name}()" in script


def test_every_requirement_of_every_extra_is_pinned() -> None:
    project = pyproject()["project"]
    lines = [line for line in (ROOT / "constraints.txt").read_text().split("\n") if line and not line.startswith("#")]
    pins = {normal(line.split("==")[0]) for line in lines}
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*( ; .+)?", line) for line in lines)
    wanted = [*project["dependencies"], *(r for extra in project["optional-dependencies"].values() for r in extra)]
    names = {normal(re.split(r"[\[<>=;! ]", requirement)[0]) for requirement in wanted} - {"zeroskip"}
    assert len(names) > 15
    assert names <= pins


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_constraints_cover_the_python_versions_without_a_gap() -> None:
    versions: dict[str, list[str]] = {}
    for line in (ROOT / "constraints.txt").read_text().split("\n"):
        if "==" in line and not line.startswith("#"):
            versions.setdefault(line.split("==")[0], []).append(line.partition(";")[2])
    for name, markers in versions.items():
        if len(markers) > 1:
            assert any("< '3.11'" in marker for marker in markers), name
            assert any(">= '3.11'" in marker for marker in markers), name


# ---- the gates can fail ----

GOOD = "namespace { int twice(int v) { return 2 * v; } }\nint gate_good(int v) { return twice(v); }\n"
BAD = "inline int leaked(int v) { return 2 * v; }\nint gate_bad(int v) { return leaked(v); }\n"


@pytest.mark.parametrize(("source", "passes"), [(GOOD, True), (BAD, False)])
def test_the_weak_symbol_gate_tells_good_from_bad(tmp_path: Path, source: str, passes: bool) -> None:
    compiler = shutil.which("g++") or shutil.which("c++")
    if compiler is None or shutil.which("nm") is None or sys.platform != "linux":
        pytest.skip("needs a C++ compiler and nm of Linux")
    (tmp_path / "k.cc").write_text(source)
    assert run(compiler, "-O0", "-c", "k.cc", "-o", "k_avx2.cc.o", cwd=tmp_path).returncode == 0
    result = run("bash", ROOT / "tools" / "check_weak_symbols.sh", tmp_path)
    assert (result.returncode == 0) is passes
    assert ("leaked" in result.stderr) is not passes


def test_the_weak_symbol_gate_wants_objects(tmp_path: Path) -> None:
    if shutil.which("nm") is None:
        pytest.skip("needs nm")
    result = run("bash", ROOT / "tools" / "check_weak_symbols.sh", tmp_path)
    assert result.returncode != 0
    assert "holds no object" in result.stderr


def fake_wheel(folder: Path, *names: str) -> Path:
    path = folder / "zeroskip-0.1.0-cp311-cp311-linux_x86_64.whl"
    info = "zeroskip-0.1.0.dist-info"
    base = ["zeroskip/__init__.py", f"{info}/licenses/LICENSE", f"{info}/entry_points.txt"]
    with zipfile.ZipFile(path, "w") as archive:
        for name in [*base, *names]:
            archive.writestr(name, "")
    return path


NATIVE = "zeroskip/_native.cpython-311-x86_64-linux-gnu.so"


@pytest.mark.parametrize(
    ("names", "fault"),
    [
        (["zeroskip/py.typed", NATIVE], None),
        (["zeroskip/py.typed", "zeroskip/_native.abi3.so"], None),
        ([NATIVE], "lacks zeroskip/py"),
        (["zeroskip/py.typed"], "lacks zeroskip/_native"),
        (["zeroskip/py.typed", NATIVE, "tests/test_x.py"], "should not hold tests/test_x.py"),
        (["zeroskip/py.typed", NATIVE, "zeroskip/_native.abi3.so"], "should not hold zeroskip/_native.abi3.so"),
    ],
)
def test_the_wheel_check_tells_good_from_bad(tmp_path: Path, names: list[str], fault: str | None) -> None:
    found = tool("check_wheel").faults(fake_wheel(tmp_path, *names))
    assert bool(found) is (fault is not None)
    assert fault is None or any(fault in line for line in found)


# ---- the installed package ----


def test_the_package_under_test_is_whole() -> None:
    assert importlib.util.find_spec("zeroskip._native") is not None, (
        f"zeroskip is imported from {PACKAGE}, which has no native module: install it, or run tools/build_native.sh"
    )
    assert (PACKAGE / "py.typed").is_file()


def test_the_version_stands_in_one_place() -> None:
    assert pyproject()["project"]["dynamic"] == ["version"]
    try:
        installed = importlib.metadata.version("zeroskip")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("zeroskip is on the path but not installed")
    assert installed == zeroskip.__version__


def imported_by(code: str) -> set[str]:
    """Top-level modules that a fresh interpreter has loaded after `code`."""
    result = run(sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)")
    assert result.returncode == 0, result.stderr
    return {name.split(".")[0] for name in result.stdout.split("\n")[-2].split()}


@pytest.mark.parametrize(
    "code",
    [
        "import zeroskip",
        "from zeroskip.cli.main import main; main(['--help'])",
        "from zeroskip.cli.main import main; main([])",
    ],
)
def test_the_first_import_and_help_load_nothing_heavy(code: str) -> None:
    assert not imported_by(code) & {"numpy", "torch", "transformers", "scipy", "matplotlib"}


def test_the_core_multiplies_without_torch() -> None:
    code = (
        "import sys, numpy as np, zeroskip\n"
        "w = np.eye(8, dtype=np.float32); x = np.arange(32, dtype=np.float32).reshape(8, 4)\n"
        "a = zeroskip.formats.CSR.from_dense(w)\n"
        "kernel = next(k.name for k in zeroskip.kernels.registry if k.origin == 'native' and not k.why_not())\n"
        "assert (zeroskip.ops.spmm(a, x, kernel=kernel) == x).all()\n"
    )
    assert not imported_by(code) & {"torch", "transformers", "scipy"}


NUMPY_ONLY = ("formats", "ops", "kernels", "runtime", "io")


def module_level_imports(tree: ast.Module) -> set[str]:
    """Roots of what a module imports when it is imported itself: not in functions, not under TYPE_CHECKING."""
    found: set[str] = set()
    todo: list[ast.stmt] = list(tree.body)
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add((node.module or "").split(".")[0])
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            todo += node.orelse
        elif not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            todo += [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt)]
    return found


@pytest.mark.parametrize("package", NUMPY_ONLY)
def test_the_core_imports_numpy_alone_at_module_level(package: str) -> None:
    files = sorted((PACKAGE / package).rglob("*.py"))
    assert files
    allowed = set(sys.stdlib_module_names) | {"numpy", "zeroskip"}
    for file in files:
        alien = module_level_imports(ast.parse(file.read_text())) - allowed
        assert not alien, f"{file.relative_to(PACKAGE)} imports {', '.join(sorted(alien))} at module level"


def test_module_level_imports_are_told_from_the_others() -> None:
    source = (
        "import os\nfrom typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch\nelse:\n    import one\n"
        "try:\n    import two\nexcept ImportError:\n    pass\ndef f():\n    import three\nclass C:\n    import four\n"
    )
    assert module_level_imports(ast.parse(source)) == {"os", "typing", "one", "two", "four"}


# ---- what the documents say ----


def test_the_layers_of_the_design_are_those_that_are_checked() -> None:
    text = (ROOT / "docs" / "design.md").read_text()
    section = text.split("## Layers", 1)[1].split("##", 1)[0]
    order = re.search(r"`cli`[^.]*?`_errors`", section, re.S)
    assert order is not None
    documented = [sorted(re.findall(r"\w+", part)) for part in order[0].split(">")]
    contract = pyproject()["tool"]["importlinter"]["contracts"][0]["layers"]
    checked = [sorted(re.findall(r"\w+", layer)) for layer in contract]
    assert checked == documented


def test_links_between_the_documents_lead_somewhere() -> None:
    pages = tracked("*.md")
    assert len(pages) > 3
    for page in pages:
        prose = re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
        for target in re.findall(r"\]\(([^)\s#]+)(?:#[^)]*)?\)", prose):
            if not re.match(r"[a-z]+:", target):
                assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} links to {target}"


def test_every_environment_variable_is_documented() -> None:
    table = (ROOT / "docs" / "design.md").read_text() + (ROOT / "README.md").read_text()
    used: set[str] = set()
    for file in tracked("src/*.py", "native/*.cc", "native/*.h"):
        used |= set(re.findall(r"[\"'](ZEROSKIP_[A-Z_]+)[\"']", file.read_text()))
    assert "ZEROSKIP_ISA" in used
    assert not {name for name in used if name not in table}


def test_no_file_names_a_folder_of_somebodys_machine() -> None:
    files = [
        f
        for f in tracked()
        if f.suffix in {".py", ".md", ".cc", ".h", ".inl", ".toml", ".txt", ".sh", ".jsonl", ".html", ""}
    ]
    assert files
    for file in files:
        found = re.search(r"(?<![\w.])/(home|root|Users|work)/\w+", file.read_text(errors="replace"))
        assert found is None or file == Path(__file__).resolve(), f"{file.relative_to(ROOT)}: {found and found[0]}"


def test_the_licence_is_whole() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text
    assert pyproject()["project"]["license"] == "Apache-2.0"
