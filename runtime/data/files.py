"""The files of a data set, in the order in which they are read."""

from __future__ import annotations

import glob
import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

from fourfold.runtime.errors import DataError

Position: TypeAlias = dict[str, int | str]
"""Where reading continues, as JSON: names and whole numbers."""


def find_files(patterns: Sequence[str], key: str) -> tuple[Path, ...]:
    """Resolve files, folders and globs to existing files. `key` is the config key they came from.

    Patterns keep their order. The files of one folder or glob are sorted as people count (`day_2`
    before `day_10`); in a folder, names that begin with "." or "_" are left out.
    """
    if not patterns:
        raise DataError(f"{key} is empty: name the files, folders or globs to read")
    found: list[Path] = []
    for pattern in patterns:
        path = Path(pattern)
        if path.is_dir():
            inside = [p for p in path.iterdir() if p.is_file() and p.name[0] not in "._"]
            if not inside:
                raise DataError(f"{key}: the folder {pattern} holds no data files")
            found += sorted(inside, key=_counting_order)
        elif path.is_file():
            found.append(path)
        elif matches := [Path(p) for p in glob.glob(pattern, recursive=True) if os.path.isfile(p)]:
            found += sorted(matches, key=_counting_order)
        else:
            kind = "no file matches" if glob.has_magic(pattern) else "there is no file or folder"
            raise DataError(f"{key}: {kind} {pattern} (seen from {Path.cwd()})")
    seen: set[Path] = set()
    for path in found:
        if path in seen:
            raise DataError(f"{key} names {path} twice")
        seen.add(path)
    return tuple(found)


class FileList:
    """The files to read, and a position among them that can be checked later.

    A saved position holds the file's place in the list, its name, and a digest of the names and
    sizes of the files before it. So files may move to another folder, or be added at the end, but a
    position never continues in other data than it was saved in.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = tuple(paths)
        self._digests = [hashlib.sha256()]  # of the files before file i

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Path:
        return self.paths[index]

    def position(self, index: int) -> Position:
        """Say which file it is; `index` may be one past the end."""
        name = self.paths[index].name if index < len(self.paths) else ""
        return {"file": index, "name": name, "before": self._digest(index)}

    def resume(self, position: Position) -> int:
        """Give the index of the file that `position` names. Raises DataError if they disagree."""
        index, name = int(position["file"]), position["name"]
        if index > len(self.paths):
            raise DataError(
                f"the saved position is in file {index + 1} ({name}), there are now "
                f"{len(self.paths)}: resume with the files of the interrupted run"
            )
        if name and (index == len(self.paths) or self.paths[index].name != name):
            now = self.paths[index].name if index < len(self.paths) else "the end of the list"
            raise DataError(
                f"the saved position is in file {index + 1}, {name}, but that is now {now}: "
                "resume with the files of the interrupted run, in the same order"
            )
        if self._digest(index) != position["before"]:
            raise DataError(
                f"the saved position is in file {index + 1} ({name or 'the end'}), but names or "
                "sizes of the files before it have changed: resume with the same files"
            )
        return index

    def _digest(self, index: int) -> str:
        while len(self._digests) <= index:
            path = self.paths[len(self._digests) - 1]
            digest = self._digests[-1].copy()
            digest.update(f"{path.name}\0{size_of(path)}\0".encode())
            self._digests.append(digest)
        return self._digests[index].hexdigest()[:16]


def size_of(path: Path) -> int:
    """Give a file's size in bytes. Raises DataError."""
    try:
        return path.stat().st_size
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error


def _counting_order(path: Path) -> list[tuple[int, int | str]]:
    """Order names by their text, with runs of digits as numbers."""
    return [
        (1, int(piece)) if piece.isdecimal() else (0, piece)
        for part in path.parts
        for piece in (*re.split(r"([0-9]+)", part), "")
    ]
