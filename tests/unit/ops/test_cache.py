"""What is kept between runs: the key, the file and its damages, and what plans and compilations take from it."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import zeroskip
from zeroskip import ZeroskipError
from zeroskip.formats import COO, CSC, CSR, ELL, SELL, Bitmask
from zeroskip.kernels import registry
from zeroskip.ops import _cache, choice
from zeroskip.runtime import measure
from zeroskip.runtime.measure import Group, Layer, measure_groups
from zeroskip.testing import assert_within_bound, random_dense, random_matrix

KEY = {"what": "test", "n": 3}


@pytest.fixture
def file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("ZEROSKIP_CACHE_DIR", str(tmp_path / "deep" / "er"))
    _cache.forget()
    return tmp_path / "deep" / "er" / _cache.FILE


def reread(key: Any = KEY, budget_s: float = 1.0) -> Any:
    """What another process would find."""
    _cache.forget()
    return _cache.recall(key, budget_s=budget_s)


def test_what_is_remembered_outlives_the_process(file: Path) -> None:
    assert _cache.recall(KEY, budget_s=1.0) is None
    _cache.remember(KEY, [1, "two"], budget_s=1.0)
    assert _cache.recall(KEY, budget_s=1.0) == [1, "two"]
    assert not file.exists()
    _cache.flush()
    assert reread() == [1, "two"]
    assert reread({**KEY, "n": 4}) is None
    assert [path.name for path in file.parent.iterdir()] == [_cache.FILE]


def test_it_is_written_when_the_interpreter_ends(file: Path) -> None:
    code = "from zeroskip.ops import _cache; _cache.remember({'n': 1}, 7, budget_s=1.0)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    assert reread({"n": 1}) == 7


def test_a_hasty_measurement_does_not_stand_for_a_careful_one(file: Path) -> None:
    _cache.remember(KEY, 1, budget_s=1.0)
    assert _cache.recall(KEY, budget_s=2.0) == 1
    assert _cache.recall(KEY, budget_s=2.1) is None


def test_two_processes_do_not_lose_what_the_other_wrote(file: Path) -> None:
    _cache.remember(KEY, 1, budget_s=1.0)
    other = "from zeroskip.ops import _cache; _cache.remember({'other': 1}, 2, budget_s=1.0)"
    subprocess.run([sys.executable, "-c", other], check=True, timeout=60)
    _cache.flush()
    assert (reread(), reread({"other": 1})) == (1, 2)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"[1, 2]",
        b'{"schema": "zeroskip.choices", "version": 99, "entries": {}}',
        b'{"schema": "zeroskip.choices", "version": 1, "entries": [1]}',
        b'{"schema": "zeroskip.choices", "version": 1, "entries": {"a": {"when": "x", "budget_s": 1, "value": 1}}}',
        b'{"schema": "other"}',
        b"[" * 100_000,
    ],
)
def test_a_damaged_or_foreign_file_is_named_once_and_replaced(
    file: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    with caplog.at_level(logging.WARNING, "zeroskip"):
        assert _cache.recall(KEY, budget_s=1.0) is None
        _cache.remember(KEY, 5, budget_s=1.0)
        _cache.flush()
    assert len(caplog.records) == 1
    assert str(file) in caplog.text
    assert reread() == 5


def test_a_file_of_absurd_size_is_not_read(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    file.parent.mkdir(parents=True)
    with open(file, "wb") as handle:
        handle.truncate(_cache.MOST_BYTES + 1)
    assert _cache.recall(KEY, budget_s=1.0) is None
    assert "more than 16 MiB" in caplog.text


def test_a_folder_that_cannot_be_written_costs_one_warning(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "taken").write_text("a file")
    monkeypatch.setenv("ZEROSKIP_CACHE_DIR", str(tmp_path / "taken"))
    _cache.forget()
    for value in (1, 2):
        _cache.remember(KEY, value, budget_s=1.0)
        _cache.flush()
    assert len(caplog.records) == 1
    assert _cache.recall(KEY, budget_s=1.0) == 2


def test_the_file_keeps_the_newest(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_cache, "MOST_ENTRIES", 3)
    clock = iter(range(100, 200))
    monkeypatch.setattr(_cache.time, "time", lambda: next(clock))
    for n in range(5):
        _cache.remember({"n": n}, n, budget_s=1.0)
    _cache.flush()
    assert [reread({"n": n}) for n in range(5)] == [None, None, 2, 3, 4]


def test_an_empty_variable_switches_it_off(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("ZEROSKIP_CACHE_DIR", "")
    _cache.remember(KEY, 1, budget_s=1.0)
    _cache.flush()
    assert _cache.recall(KEY, budget_s=1.0) is None
    assert list(tmp_path.iterdir()) == []
    assert _cache.describe() == {"folder": None, "entries": 0, "nbytes": 0}


def test_the_folder_follows_the_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert _cache.folder() == Path(os.environ["ZEROSKIP_CACHE_DIR"])
    monkeypatch.delenv("ZEROSKIP_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert _cache.folder() == tmp_path / "zeroskip"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert _cache.folder() == tmp_path / "home" / ".cache" / "zeroskip"


def test_what_is_unpacked_lies_beside_the_measurements(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One rule for the folder; what cannot do without one takes the user's where the variable switches it off."""
    from zeroskip.ops._cache import cache_dir

    monkeypatch.setenv("ZEROSKIP_CACHE_DIR", str(tmp_path / "own"))
    assert cache_dir() == _cache.folder() == tmp_path / "own"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("ZEROSKIP_CACHE_DIR", "")
    assert _cache.folder() is None
    assert cache_dir() == tmp_path / "zeroskip"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    with pytest.raises(ZeroskipError, match="set ZEROSKIP_CACHE_DIR"):
        cache_dir()


@pytest.mark.parametrize(
    "change", [{"model_name": "other"}, {"selected": "scalar"}, {"native": "0"}, {"zeroskip": "9"}]
)
def test_another_processor_or_build_has_other_keys(
    file: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, str]
) -> None:
    _cache.remember(KEY, 1, budget_s=1.0)
    here = _cache._machine()
    assert set(change) <= set(here)
    monkeypatch.setattr(_cache, "_machine", lambda: {**here, **change})
    assert _cache.recall(KEY, budget_s=1.0) is None


def test_another_number_of_threads_has_other_keys(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _cache.remember(KEY, 1, budget_s=1.0)
    monkeypatch.setattr(_cache, "_threads", lambda: 77)
    assert _cache.recall(KEY, budget_s=1.0) is None


def test_statistics_see_what_matters_and_not_more() -> None:
    a = random_matrix((200, 300), 0.7, seed=1)
    b = CSR.from_dense(2 * a.to_dense()[::-1])
    assert choice.statistics_of(a) == choice.statistics_of(b)
    seen = [
        choice.statistics_of(other)
        for other in (
            a,
            random_matrix((200, 300), 0.8, seed=1),
            a.astype("bfloat16"),
            a.convert("bitmask"),
            random_matrix((300, 200), 0.7, seed=1),
        )
    ]
    assert len({json.dumps(item) for item in seen}) == 5
    assert choice.statistics_of(CSR.from_dense(np.zeros((3, 4), np.float32)))["nnz"] is None


@pytest.mark.parametrize("cls", [CSR, CSC, Bitmask, COO, ELL, SELL])
def test_a_few_long_rows_are_another_matrix(cls: type) -> None:
    even = np.zeros((64, 64), np.float32)
    even[:, :8] = 1
    skewed = np.zeros((64, 64), np.float32)
    skewed[:8] = 1
    a, b = (choice.statistics_of(cls.from_dense(array)) for array in (even, skewed))
    assert (a["nnz"], a["spread"]) == (b["nnz"], 0)
    assert b["spread"] == round(4 * np.sqrt(7))


def test_a_plan_is_taken_from_the_cache_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    a = random_matrix((64, 96), 0.7, seed=1)
    first = zeroskip.plan("spmm", a, n=8, budget_s=0.02)
    assert "cache" not in first.reason
    _cache.flush()
    _cache.forget()

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("measured again")

    with monkeypatch.context() as patch:
        patch.setattr(sys.modules["zeroskip.ops.plan"], "measure", never)
        a = CSR.from_dense(2 * a.to_dense()[::-1])
        second = zeroskip.plan("spmm", a, n=8, budget_s=0.02)
        assert second.reason == f"{first.reason}; from cache"
        assert (second.kernel, second.measured) == (first.kernel, first.measured)
        with pytest.raises(AssertionError, match="measured again"):
            zeroskip.plan("spmm", a, n=8, budget_s=0.02, cache=False)
        with pytest.raises(AssertionError, match="measured again"):
            zeroskip.plan("spmm", a, n=9, budget_s=0.02)
        with pytest.raises(AssertionError, match="measured again"):
            zeroskip.plan("linear", a, n=8, budget_s=0.02)
    x = random_dense((96, 8), seed=2)
    assert_within_bound(second(x), a, x)


def test_a_new_measurement_replaces_the_old_one() -> None:
    a = random_matrix((64, 96), 0.7, seed=1)
    first = zeroskip.plan("spmm", a, n=8, budget_s=0.02)
    second = zeroskip.plan("spmm", a, n=8, budget_s=0.02, cache=False)
    assert second.measured != first.measured
    assert zeroskip.plan("spmm", a, n=8, budget_s=0.02).measured == second.measured


@pytest.mark.parametrize("damage", ["kernel", "number", "nan", "shape", "nothing timed"])
def test_a_damaged_entry_is_measured_again(damage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    a = random_matrix((64, 96), 0.7, seed=1)
    zeroskip.plan("spmm", a, n=8, budget_s=0.02)
    (store,) = _cache._stores.values()
    (entry,) = store.entries().values()
    row = entry["value"][0]
    if damage == "nothing timed":
        entry["value"] = [[name, None, None, None, "why"] for name, *_ in entry["value"]]
    else:
        place, value = {"kernel": (0, "spmm_none"), "number": (1, "1"), "nan": (1, float("nan")), "shape": (0, None)}[
            damage
        ]
        row[place] = value
    assert "from cache" not in zeroskip.plan("spmm", a, n=8, budget_s=0.02).reason
    assert "from cache" in zeroskip.plan("spmm", a, n=8, budget_s=0.02).reason


def _groups() -> list[Group]:
    return [Group([Layer("a", random_matrix((64, 96), 0.8, seed=1).convert("bitmask"), 0.8)])]


def _measured(cache: bool = True) -> Group:
    groups = _groups()
    options: dict[str, Any] = {"float32_too": False, "only": None, "budget_s": 0.05}
    measure_groups(groups, [1, 8], cold_bytes=0, cache=cache, **options)
    return groups[0]


def test_layers_are_taken_from_the_cache() -> None:
    first = _measured()
    assert first.timings
    assert not first.cached
    _cache.forget()  # a compilation writes when it has measured
    second = _measured()
    assert second.cached
    assert second.timings == first.timings
    assert not _measured(cache=False).cached


@pytest.mark.parametrize("damage", [None, [], [[1]], "a", [["spmm_csr_f32_scalar", 1, 0.0, 1.0]]])
def test_damaged_timings_are_refused(damage: object) -> None:
    kernels = [registry.get("spmm_csr_f32_scalar")]
    assert measure.timings_from(damage, kernels, [1, 8]) is None
    whole = measure.timings_from([["spmm_csr_f32_scalar", 10, 0.5, 1.0]], kernels, [1, 8])
    assert whole is not None
    assert whole[0].times == {1: 0.5, 8: 1.0}
