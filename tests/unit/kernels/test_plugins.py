"""Plug-ins: the two examples, built and installed; and wrong ones, each of which is one row with its reason."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zeroskip._errors import InvalidArgument, KernelUnavailable
from zeroskip.formats import CSR
from zeroskip.kernels import OURS, _plugins, registry

ROOT = Path(__file__).resolve().parents[3]
EXAMPLES = ROOT / "examples" / "plugin"
CC = shutil.which("cc")
pytestmark = pytest.mark.skipif(not EXAMPLES.is_dir(), reason="runs from a checkout only")
needs_cc = pytest.mark.skipif(CC is None, reason="there is no C compiler")


def python(*words: str, path: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """A process of its own, since what is found is found once in each."""
    import zeroskip

    folders = [str(Path(zeroskip.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    paths = os.pathsep.join(filter(None, [str(path or ""), *folders]))
    env = {**os.environ, "ZEROSKIP_PLUGINS": "", "PYTHONPATH": paths, **environment}
    return subprocess.run(
        [sys.executable, *words], env=env, capture_output=True, text=True, check=False, cwd=ROOT, timeout=200
    )


def cli(*words: str, path: Path | None = None, **environment: str) -> Any:
    done = python("-m", "zeroskip.cli", *words, "--json", path=path, **environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def compiled(folder: Path, source: str | Path, name: str) -> Path:
    assert CC is not None
    file = source if isinstance(source, Path) else folder / f"{name}.c"
    if isinstance(source, str):
        file.write_text(source)
    target = folder / f"lib{name}.so"
    command = [
        CC,
        "-O2",
        "-shared",
        "-fPIC",
        "-Wall",
        "-Werror",
        "-I",
        str(_plugins.INCLUDE),
        str(file),
        "-o",
        str(target),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return target


def installed(folder: Path, name: str, module: str, value: str) -> Path:
    """A package as pip leaves it: a module, and an entry point beside it."""
    (folder / f"{name}.py").write_text(module)
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[zeroskip.kernels]\n{name} = {name}:{value}\n")
    return folder


def row_of(name: str, path: Path | None = None, **environment: str) -> dict[str, Any]:
    rows = {row["name"]: row for row in cli("list", "kernels", path=path, **environment)}
    assert "spmm_csr_f32_scipy" in rows  # the others are there
    found: dict[str, Any] = rows[name]
    return found


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example's package, installed by pip into a folder."""
    target, source = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("source") / "python"
    shutil.copytree(EXAMPLES / "python", source)
    words = ("install", "-q", "--no-deps", "--no-index", "--no-build-isolation", "--target", str(target), str(source))
    done = python("-m", "pip", *words)
    if done.returncode:  # there is no pip, or nothing that builds: laid out as pip would
        assert "pip" in done.stderr or "setuptools" in done.stderr, done.stderr
        line = 'gather = "zeroskip_plugin_example:spmm"'
        assert line in (source / "pyproject.toml").read_text()
        shutil.copy(source / "zeroskip_plugin_example.py", target)
        info = target / "zeroskip_plugin_example-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: zeroskip-plugin-example\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text("[zeroskip.kernels]\n" + line.replace('"', "") + "\n")
    return target


def check_example(name: str, path: Path | None, **environment: str) -> None:
    """It is in the list, passes the tests of every kernel, and has a row in a benchmark."""
    kernel = f"spmm_csr_f32_{name}"
    assert row_of(kernel, path, **environment)["usable"] == "yes"
    tests = ("tests/conformance/test_kernels.py", "-q", "-k", kernel)
    done = python("-m", "pytest", *tests, path=path, **environment)
    assert done.returncode == 0, done.stdout[-3000:]
    assert " passed" in done.stdout
    words = ("--shape", "64x96", "--sparsity", "0.8", "--n", "1,9", "--budget", "0.05", "--peers", name)
    rows = cli("bench", "spmm", *words, path=path, **environment)["rows"]
    own = [row for row in rows if row["kernel"] == kernel]
    assert [(row["status"], row["role"], row["origin"]) for row in own] == [("ok", "peer", name)] * 2
    assert all(row["error_over_bound"] <= 1 and row["time_s"] > 0 for row in own)


def test_the_python_example(example: Path) -> None:
    check_example("gather", example)


@needs_cc
def test_the_c_example(tmp_path: Path) -> None:
    library = compiled(tmp_path, EXAMPLES / "c" / "rows.c", "rows")
    check_example("rows", None, ZEROSKIP_PLUGINS=str(library))
    bench = ("bench", "spmm", "--shape", "8x8", "--sparsity", "0.5", "--n", "2", "--budget", "0.01", "--peers", "none")
    measured = cli(*bench, "--plugin", str(library))["rows"]
    assert [row["status"] for row in measured if row["kernel"] == "spmm_csr_f32_rows"] == ["ok"]
    rows = cli("list", "plugins", "--plugin", str(library))
    assert [(row["name"], row["usable"], row["kernels"]) for row in rows] == [("rows", "yes", ["spmm_csr_f32_rows"])]


def test_the_examples_are_short() -> None:
    for folder in (EXAMPLES / "python", EXAMPLES / "c"):
        assert sum(len(file.read_text().splitlines()) for file in folder.iterdir() if file.is_file()) <= 40


@pytest.mark.parametrize(
    ("module", "value", "words"),
    [
        ("import not_there_at_all", "spmm", "No module named 'not_there_at_all'"),
        ("raise SystemExit(3)", "spmm", "SystemExit: 3"),
        ("spmm = 3", "spmm", "3 is no kernel"),
        ("def spmm(a, x): ...", "spmm", "it is called as spmm(indptr, indices, data, shape, x, out)"),
        ("def other(): ...", "spmm", "has no attribute 'spmm'"),
        (
            "from zeroskip.kernels import registry\nspmm = registry.get('spmm_csr_f32_scipy')",
            "spmm",
            "'spmm_csr_f32_scipy' is registered already",
        ),
    ],
)
def test_a_wrong_package_is_one_row(tmp_path: Path, module: str, value: str, words: str) -> None:
    row = row_of("spmm_csr_f32_wrong", installed(tmp_path, "wrong", module, value))
    assert row["usable"] == "no"
    assert words in row["reason"]
    assert "package wrong" in row["reason"]
    bench = ("bench", "spmm", "--shape", "8x8", "--sparsity", "0.5", "--n", "2", "--budget", "0.01", "--peers", "wrong")
    rows = [row for row in cli(*bench, path=tmp_path)["rows"] if row["kernel"] == "spmm_csr_f32_wrong"]
    assert [row["status"] for row in rows] == ["skipped"]
    assert words in rows[0]["reason"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("out[...] = 0", "wrong result"),
        ("raise RuntimeError('two\\n    lines')", "the plug-in raised RuntimeError: two lines"),
        ("return 3", "the plug-in returned int; write to out instead"),
        ("x[...] = 0", "the plug-in raised ValueError: assignment destination is read-only"),
        ("data[...] = 0", "the plug-in raised ValueError: assignment destination is read-only"),
    ],
)
def test_a_wrong_function_is_one_failed_row(tmp_path: Path, body: str, words: str) -> None:
    module = f"def spmm(indptr, indices, data, shape, x, out):\n    {body}\n"
    installed(tmp_path, "wrong", module, "spmm")
    bench = ("bench", "spmm", "--shape", "8x8", "--sparsity", "0.5", "--n", "2", "--budget", "0.01", "--json")
    done = python("-m", "zeroskip.cli", *bench, "--peers", "wrong,scipy", path=tmp_path)
    assert done.returncode == 1
    rows = {row["kernel"]: row for row in json.loads(done.stdout)["rows"]}
    assert rows["spmm_csr_f32_wrong"]["status"] == "failed"
    assert words in rows["spmm_csr_f32_wrong"]["reason"]
    assert rows["spmm_csr_f32_scipy"]["status"] == "ok"


SPMM = """#include <zeroskip_plugin.h>
int zeroskip_spmm(const zeroskip_csr *a, void *p, const float *x, int64_t n, float *out, int32_t threads) {{ {} }}
"""


@needs_cc
@pytest.mark.parametrize(
    ("name", "source", "words"),
    [
        ("no_version", SPMM.format("return 0;"), "has no zeroskip_plugin_abi"),
        ("old", SPMM.format("return 0;") + "const int32_t zeroskip_plugin_abi = 7;", "is for version 7"),
        ("empty", "#include <zeroskip_plugin.h>\nZEROSKIP_PLUGIN", "has no function zeroskip_spmm"),
        (
            "elsewhere",
            SPMM.format("return 0;") + 'ZEROSKIP_PLUGIN const char *zeroskip_why_not(void) { return "no such unit"; }',
            "no such unit",
        ),
    ],
)
def test_a_wrong_library_is_one_row(tmp_path: Path, name: str, source: str, words: str) -> None:
    library = compiled(tmp_path, source, name)
    row = row_of(f"spmm_csr_f32_{name}", ZEROSKIP_PLUGINS=str(library))
    assert row["usable"] == "no"
    assert words in row["reason"]


def test_a_file_that_is_no_library_or_not_there_is_one_row(tmp_path: Path) -> None:
    text = tmp_path / "libtext.so"
    text.write_text("not a library")
    files = os.pathsep.join((str(text), str(tmp_path / "libgone.so")))
    assert "cannot be opened" in row_of("spmm_csr_f32_text", ZEROSKIP_PLUGINS=files)["reason"]
    assert "is no file" in row_of("spmm_csr_f32_gone", ZEROSKIP_PLUGINS=files)["reason"]


@needs_cc
def test_codes_of_a_library_are_told_and_what_it_prepares_is_counted_and_freed(tmp_path: Path) -> None:
    source = (
        SPMM.format(
            "if (n > 4) return 1; if (n > 2) return 9; "
            "for (int64_t i = 0; i < a->rows * n; i++) out[i] = *(float *)p; return 0;"
        )
        + "ZEROSKIP_PLUGIN\nstatic float kept = 2; int freed = 0;\n"
        "int zeroskip_prepare(const zeroskip_csr *a, int32_t t, void **p, int64_t *b)\n"
        "{ *p = &kept; *b = 4; return 0; }\n"
        "void zeroskip_release(void *p) { freed += p == &kept; }\n"
    )
    import ctypes

    library = compiled(tmp_path, source, "codes")
    (origin,) = _plugins.use([library])
    assert (origin, _plugins.use([library])) == ("codes", ["codes"])
    kernel = registry.get("spmm_csr_f32_codes")
    prepared = kernel.prepare(CSR.from_dense(np.eye(3, dtype=np.float32)))
    assert prepared.nbytes == 4
    out = np.full((2, 3), np.nan, np.float32)
    prepared.run(np.ones((2, 3), np.float32), out, bias=np.arange(3, dtype=np.float32), transposed=True)
    np.testing.assert_array_equal(out, [[2, 3, 4], [2, 3, 4]])
    for n, words in ((3, "returned 9"), (5, "returned 1: it does not take this matrix")):
        with pytest.raises(KernelUnavailable, match=words):
            prepared.run(np.ones((3, n), np.float32), np.empty((3, n), np.float32))
    freed = ctypes.c_int.in_dll(ctypes.CDLL(str(library)), "freed")
    assert freed.value == 0
    del prepared
    assert freed.value == 1


def test_a_kernel_that_keeps_no_rule_is_refused() -> None:
    from dataclasses import replace

    good: Any = registry.get("spmm_csr_f32_scipy")
    for change, words in (
        ({"op": "sddmm"}, "op is spmm"),
        ({"dtype": "float64"}, "dtype of float32"),
        ({"name": "mine"}, "rename it"),
        ({"name": "spmm_csr_f32_other"}, "rename it"),
        ({"origin": "native"}, "is zeroskip's; name the package"),
        ({"origin": "zeroskip"}, "is zeroskip's; name the package"),
    ):
        with pytest.raises(KernelUnavailable, match=words):
            _plugins._check(replace(good, **change))
    with pytest.raises(KernelUnavailable, match="register an instance"):
        _plugins._check(type(good))


def test_include_names_the_header_and_goes_with_plugins_alone() -> None:
    done = python("-m", "zeroskip.cli", "list", "plugins", "--include")
    assert (Path(done.stdout.strip()) / "zeroskip_plugin.h").is_file()
    assert python("-m", "zeroskip.cli", "list", "formats", "--include").returncode == 2
    assert python("-m", "zeroskip.cli", "list", "kernels", "--plugin", "not-there.so").returncode == 2


def test_rivals_are_listed_with_the_reason_and_how_to_have_them() -> None:
    rows = {row["name"]: row for row in cli("list", "rivals")}
    assert rows["numpy"]["runs here"] == "yes"
    origins = {kernel.origin for kernel in registry} - {*OURS, "codes"}
    assert origins <= set(rows)
    for row in rows.values():
        assert row["install"]
        assert row["kernels"] >= 1
        assert (row["reason"] is None) == (row["runs here"] == "yes")
    with pytest.raises(KernelUnavailable, match="PyPI"):
        registry.get("spmm_csr_f32_libxsmm").prepare(CSR.from_dense(np.eye(3, dtype=np.float32)))


def test_a_file_that_is_gone_is_an_error_where_it_is_opened(tmp_path: Path) -> None:
    from zeroskip.kernels._plugin_library import Library

    with pytest.raises(InvalidArgument, match="is no file"):
        Library(str(tmp_path / "libgone.so"))
