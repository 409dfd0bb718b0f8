"""Which files are read, in which order, and positions among them."""

from pathlib import Path

import pytest

from fourfold.runtime.data.files import FileList, find_files
from fourfold.runtime.data.text import TextFile
from fourfold.runtime.errors import DataError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch) -> Path:
    for name in ("day_10", "day_2", "day_1", "_SUCCESS", ".hidden"):
        (tmp_path / name).write_text(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(*patterns: str) -> list[str]:
    return [path.name for path in find_files(patterns, "data.paths")]


def test_folders_and_globs_are_sorted_as_people_count(folder: Path):
    assert names(str(folder)) == ["day_1", "day_2", "day_10"]
    assert names("day_*") == ["day_1", "day_2", "day_10"]


def test_patterns_keep_their_order(folder: Path):
    assert names("day_10", "day_[12]") == ["day_10", "day_1", "day_2"]
    assert names("_SUCCESS") == ["_SUCCESS"]


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        ((), "data.paths is empty"),
        (("day_3",), "there is no file or folder day_3"),
        (("week_*",), "no file matches week_*"),
        (("day_1", "day_*"), "names day_1 twice"),
        (("empty",), "the folder empty holds no data files"),
    ],
)
def test_what_is_missing_is_named(patterns: tuple[str, ...], message: str, folder: Path):
    (folder / "empty").mkdir()
    with pytest.raises(DataError) as error:
        find_files(patterns, "data.paths")

    assert message in str(error.value)


def test_file_that_vanished_is_named(folder: Path):
    with pytest.raises(DataError, match="day_3: cannot be read: No such file"):
        TextFile(folder / "day_3")


class TestPositions:
    def test_folder_may_move_and_files_may_be_added(self, folder: Path):
        position = FileList(find_files(("day_1", "day_2"), "")).position(1)
        moved = folder / "moved"
        moved.mkdir()
        for name in ("day_1", "day_2", "day_10"):
            (moved / name).write_text((folder / name).read_text())

        assert FileList(find_files((str(moved),), "")).resume(position) == 1

    def test_end_of_the_list(self, folder: Path):
        position = FileList(find_files(("day_1", "day_2"), "")).position(2)

        assert FileList(find_files(("day_1", "day_2"), "")).resume(position) == 2
        with pytest.raises(DataError, match=r"there are now 1"):
            FileList(find_files(("day_1",), "")).resume(position)

    def test_other_files_are_refused(self, folder: Path):
        position = FileList(find_files(("day_*",), "")).position(1)
        with pytest.raises(DataError, match="file 2, day_2, but that is now day_10"):
            FileList(find_files(("day_1", "day_10"), "")).resume(position)
        (folder / "day_1").write_text("longer than before")
        with pytest.raises(DataError, match="sizes of the files before it have changed"):
            FileList(find_files(("day_*",), "")).resume(position)
