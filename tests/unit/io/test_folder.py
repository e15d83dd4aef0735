"""Folders are written whole or not at all."""

import pytest

from zeroskip import InvalidArgument, ZeroskipError
from zeroskip.io import MANIFEST, write_folder
from zeroskip.io import folder as folder_module


def filler(text):
    def fill(work):
        (work / MANIFEST).write_text(text)
        (work / "data").write_text(text)

    return fill


def left_over(tmp_path):
    return sorted(path.name for path in tmp_path.iterdir())


def test_new_and_empty_folders_are_filled(tmp_path):
    (tmp_path / "empty").mkdir()
    for name in ("new", "empty", "deep/er"):
        write_folder(tmp_path / name, filler("x"))
        assert (tmp_path / name / "data").read_text() == "x"
    assert left_over(tmp_path) == ["deep", "empty", "new"]


def test_a_saved_model_is_replaced_only_when_asked(tmp_path):
    write_folder(tmp_path / "m", filler("old"))
    with pytest.raises(InvalidArgument, match="overwrite=True"):
        write_folder(tmp_path / "m", filler("new"))
    assert (tmp_path / "m" / "data").read_text() == "old"
    write_folder(tmp_path / "m", filler("new"), overwrite=True)
    assert (tmp_path / "m" / "data").read_text() == "new"
    assert left_over(tmp_path) == ["m"]


def test_other_folders_and_files_are_never_replaced(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years")
    (tmp_path / "file").write_text("x")
    with pytest.raises(InvalidArgument, match="no compiled model"):
        write_folder(tmp_path / "mine", filler("new"), overwrite=True)
    with pytest.raises(InvalidArgument, match="is a file"):
        write_folder(tmp_path / "file", filler("new"), overwrite=True)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), MemoryError(), OSError(28, "No space left on device")])
def test_an_interruption_leaves_the_old_one_whole(tmp_path, error):
    write_folder(tmp_path / "m", filler("old"))

    def fill(work):
        (work / "data").write_text("half")
        raise error

    expected = ZeroskipError if isinstance(error, OSError) else type(error)
    with pytest.raises(expected):
        write_folder(tmp_path / "m", fill, overwrite=True)
    assert (tmp_path / "m" / "data").read_text() == "old"
    assert left_over(tmp_path) == ["m"]


def test_replacing_without_an_exchange_in_one_step(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_module, "_exchange", lambda a, b: False)
    write_folder(tmp_path / "m", filler("old"))
    write_folder(tmp_path / "m", filler("new"), overwrite=True)
    assert (tmp_path / "m" / "data").read_text() == "new"
    assert left_over(tmp_path) == ["m"]


def test_a_failed_rename_puts_the_old_one_back(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_module, "_exchange", lambda a, b: False)
    write_folder(tmp_path / "m", filler("old"))
    rename = type(tmp_path).rename

    def fail_second(self, target):
        if ".tmp-" in self.name and not self.name.endswith(".old"):
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(type(tmp_path), "rename", fail_second)
    with pytest.raises(ZeroskipError, match="Input/output error"):
        write_folder(tmp_path / "m", filler("new"), overwrite=True)
    assert (tmp_path / "m" / "data").read_text() == "old"
    assert left_over(tmp_path) == ["m"]
