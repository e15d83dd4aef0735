"""Memory as the system tells it, within the limits of control groups."""

from __future__ import annotations

from pathlib import Path

import pytest

from zeroskip import _memory

MIB = 2**20


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A system with 100 MiB to spare and a process in the group /a/b."""
    monkeypatch.setattr(_memory, "_PROC", tmp_path / "proc")
    monkeypatch.setattr(_memory, "_GROUPS", tmp_path / "groups")
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "proc" / "meminfo").write_text("MemTotal: 999999 kB\nMemAvailable: 102400 kB\n")
    (tmp_path / "proc" / "self" / "cgroup").write_text("0::/a/b\n")
    return tmp_path


def group(folder: Path, names: tuple[str, str, str], limit: str, used: int, files: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 1\n{names[2]} {files}\n")


NEW = ("memory.max", "memory.current", "inactive_file")
OLD = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def test_without_a_limit_the_system_counts(told: Path) -> None:
    group(told / "groups" / "a" / "b", NEW, "max", 5, 0)
    assert _memory.available_bytes() == 100 * MIB


def test_the_tightest_group_counts_and_caches_of_files_are_free(told: Path) -> None:
    group(told / "groups" / "a" / "b", NEW, str(80 * MIB), 30 * MIB, 10 * MIB)
    assert _memory.available_bytes() == 60 * MIB
    group(told / "groups" / "a", NEW, str(40 * MIB), 30 * MIB, 0)
    assert _memory.available_bytes() == 10 * MIB
    assert _memory.total_bytes() == 40 * MIB
    group(told / "groups" / "a", NEW, str(40 * MIB), 50 * MIB, 0)
    assert _memory.available_bytes() == 0


def test_groups_of_version_1(told: Path) -> None:
    (told / "proc" / "self" / "cgroup").write_text("4:cpu,cpuacct:/x\n7:memory:/x\n")
    group(told / "groups" / "memory" / "x", OLD, str(2**63 - 4096), 1, 0)
    assert _memory.available_bytes() == 100 * MIB
    group(told / "groups" / "memory", OLD, str(50 * MIB), 20 * MIB, 5 * MIB)
    assert _memory.available_bytes() == 35 * MIB


def test_a_system_that_does_not_say(told: Path) -> None:
    (told / "proc" / "meminfo").unlink()
    assert _memory.available_bytes() is None
    (told / "proc" / "self" / "cgroup").unlink()
    total = _memory.total_bytes()
    assert total is None or total > 0


def test_this_machine() -> None:
    available, total = _memory.available_bytes(), _memory.total_bytes()
    assert available is None or total is None or 0 <= available <= total
