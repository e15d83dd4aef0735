"""The command line without any model: help, exit codes, one-line errors, JSON alone on standard output."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from zeroskip import ShapeError, __version__
from zeroskip.cli import _options, main
from zeroskip.cli import list as list_command
from zeroskip.cli.main import COMMANDS


def lines_of(text: str) -> list[str]:
    return text.strip().splitlines()


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command_has_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    shown = capsys.readouterr().out
    assert "examples:" in shown
    assert f"zeroskip {command}" in shown.split("examples:")[1]
    assert max(map(len, shown.splitlines())) <= 120


def test_help_of_bench_spmm_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "spmm", "--help"]) == 0
    assert "zeroskip bench spmm --shape 4096x4096" in capsys.readouterr().out


def test_top_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    for command, summary in COMMANDS.items():
        assert command in shown
        assert summary in shown


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"zeroskip {__version__}\n"


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["prune", "--help"], ["demo", "--help"]])
def test_help_imports_nothing_heavy(words: list[str]) -> None:
    code = (
        "import sys; from zeroskip.cli.main import main; main(sys.argv[1:]); "
        "print(sorted({'numpy', 'torch', 'transformers', 'matplotlib', 'tqdm'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr.strip() == "[]"


def test_help_is_quick() -> None:
    """The gate is 0.3 s on an idle machine; ten times that still finds an import that does not belong."""
    times = []
    for _ in range(3):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "zeroskip.cli", "--help"], capture_output=True, timeout=60, check=True)
        times.append(time.perf_counter() - start)
    assert min(times) < 3


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "COMMAND"),
        (["nonsense"], "invalid choice"),
        (["prune", "somewhere"], "-o"),
        (["prune", "somewhere", "-o", "out", "--sparsity", "60"], "60 % is written 0.6"),
        (["prune", "somewhere", "-o", "out", "--sparsity", "1"], "a fraction in [0, 1)"),
        (["prune", "somewhere", "-o", "out", "--sparsity", "nan"], "a fraction in [0, 1)"),
        (["prune", "somewhere", "-o", "out", "--pattern", "4:2"], "0 < N < M"),
        (["prune", "somewhere", "-o", "out", "--method", "magic"], "sparsegpt"),
        (["prune", "somewhere", "-o", "out", "--samples", "0"], "below 1"),
        (["bench", "spmm", "--shape", "4096"], "rows x columns"),
        (["bench", "spmm", "--pattern", "2:4", "--sparsity", "0.9"], "does not go with"),
        (["bench", "spmm", "--n", ","], "the list is empty"),
        (["embed", "somewhere", "nowhere.txt", "-o", "vectors.npy"], "nowhere.txt is no file"),
        (["embed", "somewhere", "nowhere.txt", "-o", "vectors.bin"], ".npy"),
        (["inspect", "nowhere"], "neither a compiled nor a pruned model"),
        (["run", "somewhere", ""], "the prompt is empty"),
    ],
)
def test_wrong_use_is_two(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    shown = capsys.readouterr()
    assert says in shown.err
    assert shown.out == ""
    assert "Traceback" not in shown.err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["prune", "/nowhere/at/all", "-o", "out"], "/nowhere/at/all"),
        (["compile", "/nowhere/at/all", "-o", "out"], "/nowhere/at/all"),
        (["run", "/nowhere/at/all", "Hello"], "/nowhere/at/all"),
        (["eval", "/nowhere/at/all"], "/nowhere/at/all"),
        (["demo", "--model", "/nowhere/at/all", "-o", "out"], "/nowhere/at/all"),
        (["bench", "spmm", "--kernels", "magic", "--shape", "8x8"], "magic"),
        (["bench", "spmm", "--peers", "magic", "--shape", "8x8"], "magic"),
        (["bench", "spmm", "--pattern", "2:4", "--shape", "8x6"], "multiple of 4"),
    ],
)
def test_failure_is_one_with_one_line(
    words: list[str], says: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ZEROSKIP_DEBUG", raising=False)
    assert main([*words, "--quiet"]) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert len(lines_of(shown.err)) == 1
    assert says in shown.err
    assert list_of(tmp_path) == []


def list_of(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def raising(error: BaseException) -> object:
    def run(args: argparse.Namespace, console: object) -> int:
        raise error

    return run


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (ShapeError("spmm: b has shape (5, 64)"), 1, "zeroskip list: spmm: b has shape (5, 64)"),
        (OSError(28, "No space left on device", "out"), 1, "No space left on device"),
        (MemoryError(), 1, "not enough memory"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_errors_are_one_line(
    error: BaseException, code: int, says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("ZEROSKIP_DEBUG", raising=False)
    monkeypatch.setattr(list_command, "run", raising(error))
    assert main(["list", "formats"]) == code
    shown = capsys.readouterr()
    assert shown.out == ""
    assert len(lines_of(shown.err)) == 1
    assert says in shown.err


@pytest.mark.parametrize("how", ["option", "variable"])
def test_debug_shows_the_traceback(
    how: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("ZEROSKIP_DEBUG", raising=False)
    monkeypatch.setattr(list_command, "run", raising(ShapeError("wrong")))
    if how == "variable":
        monkeypatch.setenv("ZEROSKIP_DEBUG", "1")
    assert main(["list", "formats", *(["--debug"] if how == "option" else [])]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_bug_shows_where_it_is(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(list_command, "run", raising(RuntimeError("unforeseen")))
    assert main(["list", "formats"]) == 1
    shown = capsys.readouterr().err
    assert "unforeseen" in shown
    assert "a bug in zeroskip (RuntimeError)" in lines_of(shown)[-1]


def test_prints_of_libraries_do_not_reach_the_result(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(args: argparse.Namespace, console: object) -> int:
        print("a library talks")
        console.emit({"done": True})  # type: ignore[attr-defined]
        return 0

    monkeypatch.setattr(list_command, "run", run)
    assert main(["list", "formats", "--json"]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out) == {"done": True}
    assert "a library talks" in shown.err


def test_a_closed_pipe_is_no_traceback() -> None:
    command = f"{sys.executable} -m zeroskip.cli list kernels | head -n 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=120, check=True)
    assert "Traceback" not in done.stderr
    assert len(lines_of(done.stdout)) == 1


@pytest.mark.parametrize(
    ("kind", "known"), [("kernels", "spmm_dense_f32_numpy"), ("formats", "bitmask"), ("pruners", "sparsegpt")]
)
def test_list(kind: str, known: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", kind]) == 0
    assert known in capsys.readouterr().out
    assert main(["list", kind, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert known in [row["name"] for row in rows]


def test_list_kernels_says_why_not(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "kernels", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert all((row["usable"] == "yes") == (row["reason"] is None) for row in rows)


def test_doctor(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Nehalem")
    assert main(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["native"] is None
    assert report["machine"]["isa"] in report["machine"]["isas"]
    assert report["threads"]["zeroskip"] >= 1
    assert any("OPENBLAS_CORETYPE" in text for text in report["warnings"])
    assert main(["doctor"]) == 0
    shown = capsys.readouterr().out
    for heading in ("processor", "caches", "chosen", "versions", "rival libraries", "environment", "OPENBLAS_CORETYPE"):
        assert heading in shown


def test_doctor_says_what_the_system_does_not_permit(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from zeroskip.kernels import registry

    reason = "needs amx, which the system does not permit: arch_prctl: No space left on device"
    kernel = next(kernel for kernel in registry if kernel.isa == "scalar")
    monkeypatch.setattr(type(kernel), "why_not", lambda self: reason if self is kernel else None)
    assert main(["doctor"]) == 0
    assert f"AMX cannot be used: {reason}." in capsys.readouterr().out


def test_doctor_without_the_native_module() -> None:
    """What a broken installation sees: the reason, and exit code 1."""
    code = (
        "import sys; sys.modules['zeroskip._native'] = None; "
        "from zeroskip.cli.main import main; sys.exit(main(['doctor']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "native module cannot be imported" in done.stdout


@pytest.mark.parametrize(
    ("convert", "text", "value"),
    [
        (_options.fraction, "0.5", 0.5),
        (_options.fractions, "0.5,0.9,0.5", [0.5, 0.9]),
        (_options.positives, "1, 32,128", [1, 32, 128]),
        (_options.shapes, "2048x2048,64X32", [(2048, 2048), (64, 32)]),
        (_options.pattern, "block:16x1", "block:16x1"),
        (_options.method, "wanda", "wanda"),
        (_options.probability, "1", 1.0),
    ],
)
def test_types_of_options(convert: object, text: str, value: object) -> None:
    assert convert(text) == value  # type: ignore[operator]


@pytest.mark.parametrize(
    ("convert", "text"),
    [
        (_options.fraction, "half"),
        (_options.fraction, "-0.1"),
        (_options.fractions, ""),
        (_options.positives, "1,0"),
        (_options.positives, "1.5"),
        (_options.shapes, "0x5"),
        (_options.shapes, "5x5x5"),
        (_options.probability, "1.5"),
        (_options.not_negative, "inf"),
    ],
)
def test_types_of_options_refuse(convert: object, text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        convert(text)  # type: ignore[operator]
