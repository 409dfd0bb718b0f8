"""placement.toml: a placement as a file that people read and edit.

    world_size = 8

    [table.user]
    rows = 4            # hash buckets
    columns = 2         # column ranges, multiples of 4 elements
    replicas = 1        # copies of every tile
    ranks = "0-7"       # cells [replica, column, row], row fastest

    [table.odd]         # not a regular grid: the tiles one by one
    tiles = [
      { bucket = 0, buckets = 2, columns = [0, 64], ranks = "0" },
      { bucket = 1, buckets = 2, columns = [0, 32], ranks = "1" },
      { bucket = 1, buckets = 2, columns = [32, 64], ranks = "2" },
    ]

Keys left out are 1. `ranks` may also be a list of numbers.
"""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from fourfold.comm.cut import Cut, parse_ranks, ranks_text
from fourfold.comm.errors import PlacementError
from fourfold.comm.tile import Shape, Tile

_HEAD = """\
# Where every embedding table lies: a grid of rows (hash buckets) x columns (ranges of the dim) x
# replicas, dealt to ranks row first, then column, then replica. What is left out is 1.
"""
_COUNTS = ("rows", "columns", "replicas")


def write_tiles(shapes: Sequence[Shape], tiles: Sequence[Tile], world_size: int) -> str:
    """Write the tiles of these tables so that `read_tiles` gives equal ones."""
    by_table: dict[int, list[Tile]] = {}
    for tile in tiles:
        by_table.setdefault(tile.table, []).append(tile)
    parts = [f"{_HEAD}world_size = {world_size}\n"]
    for table, shape in enumerate(shapes):
        own = by_table.get(table, [])
        cut = Cut.of(own, shape)
        lines = _cut_lines(cut) if cut else _tile_lines(own)
        parts.append(f"[table.{_key(shape.name)}]\n" + "".join(f"{line}\n" for line in lines))
    return "\n".join(parts)


def read_tiles(text: str, shapes: Sequence[Shape], world_size: int) -> tuple[Tile, ...]:
    """Read the tiles of these tables in a world of `world_size` ranks.

    Raises PlacementError naming the key, the nearest valid one, and a table that is unknown or
    missing.
    """
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise PlacementError(f"placement: not valid TOML: {error}") from error
    _check_keys("placement", tree, ("world_size", "table"))
    if _integer("placement", tree, "world_size", 0) != world_size:
        raise PlacementError(
            f"placement: made for {tree.get('world_size')} ranks, but this world has {world_size}:"
            " plan again, or start as many ranks"
        )
    entries = tree.get("table", {})
    if not isinstance(entries, dict):
        raise PlacementError("placement: expected one [table.NAME] per table")
    names = [shape.name for shape in shapes]
    for name in entries:
        if name not in names:
            raise PlacementError(f"placement: unknown table {name!r}; {_nearest(name, names)}")
    missing = [name for name in names if name not in entries]
    if missing:
        raise PlacementError(
            f"placement: {len(missing)} of {len(names)} tables have no entry:"
            f" {', '.join(map(repr, missing[:5]))}{', ...' if missing[5:] else ''}; add"
            f" [table.{_key(missing[0])}]"
        )
    return tuple(
        tile
        for table, shape in enumerate(shapes)
        for tile in _read_table(table, shape, entries[shape.name])
    )


def _cut_lines(cut: Cut) -> Iterator[str]:
    for axis in _COUNTS:
        if getattr(cut, axis) > 1:
            yield f"{axis} = {getattr(cut, axis)}"
    yield f'ranks = "{ranks_text(cut.ranks)}"'


def _tile_lines(tiles: Sequence[Tile]) -> Iterator[str]:
    yield "tiles = ["
    for t in tiles:
        yield (
            f"  {{ bucket = {t.bucket}, buckets = {t.buckets}, columns = [{t.start}, {t.stop}],"
            f' ranks = "{ranks_text(t.ranks)}" }},'
        )
    yield "]"


def _read_table(table: int, shape: Shape, entry: Any) -> tuple[Tile, ...]:
    where = f"placement: table {shape.name!r}"
    _check_keys(where, entry, (*_COUNTS, "ranks") if "tiles" not in entry else ("tiles",))
    if "tiles" not in entry:
        counts = {axis: _integer(where, entry, axis, 1) for axis in _COUNTS}
        return Cut(**counts, ranks=_ranks(where, entry)).tiles(table, shape)
    tiles = entry["tiles"]
    if not isinstance(tiles, list):
        raise PlacementError(f"{where}: tiles must be a list of tables, got {tiles!r}")
    return tuple(_read_tile(table, f"{where}, tile {i}", tile) for i, tile in enumerate(tiles))


def _read_tile(table: int, where: str, entry: Any) -> Tile:
    _check_keys(where, entry, ("bucket", "buckets", "columns", "ranks"))
    columns = entry.get("columns")
    if not (isinstance(columns, list) and len(columns) == 2 and all(map(_is_integer, columns))):
        raise PlacementError(f"{where}: columns must be [first, end], got {columns!r}")
    return Tile(
        table=table,
        bucket=_integer(where, entry, "bucket", 0),
        buckets=_integer(where, entry, "buckets", 1),
        start=columns[0],
        stop=columns[1],
        ranks=_ranks(where, entry),
    )


def _ranks(where: str, entry: Mapping[str, Any]) -> tuple[int, ...]:
    ranks = entry.get("ranks")
    if isinstance(ranks, str):
        try:
            return parse_ranks(ranks)
        except PlacementError as error:
            raise PlacementError(f"{where}: {error}") from error
    if isinstance(ranks, list) and all(map(_is_integer, ranks)):
        return tuple(ranks)
    raise PlacementError(f'{where}: ranks must be like "0-3,9" or [0, 1, 2], got {ranks!r}')


def _check_keys(where: str, entry: Any, known: Sequence[str]) -> None:
    if not isinstance(entry, dict):
        raise PlacementError(f"{where}: expected a table, got {entry!r}")
    for key in entry:
        if key not in known:
            raise PlacementError(f"{where}: unknown key {key!r}; {_nearest(key, known)}")


def _integer(where: str, entry: Mapping[str, Any], key: str, default: int) -> int:
    value = entry.get(key, default)
    if not _is_integer(value):
        raise PlacementError(f"{where}: {key} must be a whole number, got {value!r}")
    return int(value)


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _nearest(name: str, names: Iterable[str]) -> str:
    """Say which of `names` looks most like `name`, as the end of a message."""
    known = list(names)
    near = difflib.get_close_matches(name, known, n=1)
    return f"nearest: {near[0]!r}" if near else f"known: {', '.join(known) or 'none'}"


def _key(name: str) -> str:
    """Write a table's name as a TOML key."""
    if re.fullmatch(r"[A-Za-z0-9_-]+", name):
        return name
    return json.dumps(name, ensure_ascii=False).replace("\x7f", "\\u007f")
