"""Placements are plain data: checked, printed, saved, edited by hand and loaded again."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fourfold.comm.cut import Cut
from fourfold.comm.errors import PlacementError
from fourfold.comm.placement import Placement
from fourfold.comm.tile import Shape, Tile

SHAPES = (Shape("user", 64, 1000), Shape("item", 32, None))


@st.composite
def placements(draw: st.DrawFn) -> Placement:
    """Any valid placement: some tables regular, some cut differently in every bucket."""
    size = draw(st.integers(1, 12))
    names = draw(
        st.lists(
            st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
            max_size=5,
            unique=True,
        )
    )
    shapes, tiles = [], []
    for table, name in enumerate(names):
        dim = draw(st.integers(1, 70))
        shapes.append(Shape(name, dim, draw(st.none() | st.integers(1, 10**9))))
        buckets = draw(st.integers(1, 4))
        for bucket in range(buckets):
            inner = draw(st.sets(st.integers(1, 17), max_size=3))
            edges = [0, *sorted(4 * edge for edge in inner if 4 * edge < dim), dim]
            for start, stop in itertools.pairwise(edges):
                holders = draw(st.sets(st.integers(0, size - 1), min_size=1, max_size=3))
                tiles.append(Tile(table, bucket, buckets, start, stop, tuple(holders)))
    return Placement(tuple(shapes), tuple(draw(st.permutations(tiles))), size)


@given(placements())
def test_what_is_saved_loads_equal(placement: Placement) -> None:
    everyone = range(placement.world_size)
    placement.validate(everyone, everyone)
    text = placement.to_toml()
    loaded = Placement.from_toml(text, placement.shapes, placement.world_size)

    assert loaded == placement
    assert loaded.to_toml() == text
    text.encode("utf-8")


@given(placements(), st.data())
def test_damage_is_found(placement: Placement, data: st.DataObject) -> None:
    """Without any one tile, with one twice, or with one on a rank that is not there."""
    if not placement.tiles:
        return
    everyone = range(placement.world_size)
    i = data.draw(st.integers(0, len(placement.tiles) - 1))
    tile = placement.tiles[i]
    others = placement.tiles[:i] + placement.tiles[i + 1 :]
    away = dataclasses.replace(tile, ranks=(*tile.ranks, placement.world_size))

    for tiles in (others, (*placement.tiles, tile), (*others, away)):
        damaged = dataclasses.replace(placement, tiles=tiles)
        with pytest.raises(PlacementError, match="table"):
            damaged.validate(everyone, everyone)


def test_any_name_can_be_saved() -> None:
    shapes = [Shape(name, 4, 1) for name in ("", ".", "a b", '"', "\\", "\n\t\0", "\x7f", "\u00e9")]
    placement = Placement.of(shapes, [Cut(ranks=(0,))] * len(shapes), 1)

    assert Placement.from_toml(placement.to_toml(), shapes, 1) == placement


def test_regular_tables_are_saved_as_grids() -> None:
    cuts = (Cut(rows=4, columns=2, ranks=tuple(range(8))), Cut(replicas=8, ranks=tuple(range(8))))
    text = Placement.of(SHAPES, cuts, 8).to_toml()

    assert '[table.user]\nrows = 4\ncolumns = 2\nranks = "0-7"\n' in text
    assert '[table.item]\nreplicas = 8\nranks = "0-7"\n' in text
    assert "tiles" not in text.replace("grid of", "").split("world_size")[1]


def test_a_person_may_edit_it() -> None:
    text = """
    world_size = 4
    table.item.ranks = [2]
    [table.user]
    rows = 2
    ranks = "3, 0"
    """
    placement = Placement.from_toml(text, SHAPES, 4)
    placement.validate(range(4), range(4))

    assert placement.held_by(0) == (Tile(0, 1, 2, 0, 64, (0,)),)
    assert placement.held_by(3) == (Tile(0, 0, 2, 0, 64, (3,)),)
    assert placement.held_by(1) == ()
    assert placement.holders() == (0, 2, 3)
    assert placement.of_table(1) == (Tile(1, 0, 1, 0, 32, (2,)),)


GOOD = 'world_size = 4\n[table.user]\nranks = "0"\n[table.item]\nranks = "1"\n'


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[table.item]", "[table.itme]", "unknown table 'itme'; nearest: 'item'"),
        (
            '[table.item]\nranks = "1"',
            "",
            r"1 of 2 tables have no entry: 'item'; add \[table.item\]",
        ),
        ("world_size = 4", "world_size = 8", "made for 8 ranks, but this world has 4"),
        ("world_size = 4", "", "made for None ranks, but this world has 4"),
        (
            'ranks = "1"',
            'ranks = "1"\ncolumn = 2',
            "'item': unknown key 'column'; nearest: 'columns'",
        ),
        ('ranks = "1"', "ranks = 1", r"'item': ranks must be like .*, got 1"),
        ('ranks = "1"', 'ranks = "x"', r"'item': ranks 'x': expected ranks and ranges"),
        ('ranks = "1"', "rows = 2", "'item': ranks must be like .*, got None"),
        ('ranks = "1"', 'rows = "2"\nranks = "1"', "'item': rows must be a whole number, got '2'"),
        ('ranks = "1"', 'rows = true\nranks = "1"', "rows must be a whole number, got True"),
        ('ranks = "1"', "tiles = 3", "tiles must be a list of tables, got 3"),
        ('ranks = "1"', "tiles = [3]", "'item', tile 0: expected a table, got 3"),
        ('ranks = "1"', "tiles = [{columns = [0]}]", r"tile 0: columns must be .*, got \[0\]"),
        ('ranks = "1"', 'tiles = []\nranks = "1"', "unknown key 'ranks'; known: tiles"),
        ("[table.item]", "[tabel.item]", "unknown key 'tabel'; nearest: 'table'"),
        ("[table.item]", "[table.item", "not valid TOML"),
    ],
)
def test_mistakes_in_the_file_are_named(old: str, new: str, message: str) -> None:
    assert Placement.from_toml(GOOD, SHAPES, 4).world_size == 4
    assert old in GOOD

    with pytest.raises(PlacementError, match=f"(?s)placement: .*{message}"):
        Placement.from_toml(GOOD.replace(old, new), SHAPES, 4)


def cover(*tiles: tuple[int, int, int, int, tuple[int, ...]]) -> Placement:
    """Place one table of dim 64 so, on 4 ranks."""
    return Placement(SHAPES[:1], tuple(Tile(0, *tile) for tile in tiles), 4)


@pytest.mark.parametrize(
    ("placement", "message"),
    [
        (cover(), "table 'user' has no tile"),
        (cover((0, 2, 0, 64, (0,))), r"bucket 1 of 2: columns \[0, 64\) are missing"),
        (cover((0, 1, 0, 32, (0,))), r"bucket 0 of 1: columns \[32, 64\) are missing"),
        (
            cover((0, 1, 0, 32, (0,)), (0, 1, 16, 64, (1,))),
            r"bucket 0 of 1: columns \[16, 32\) are placed twice",
        ),
        (
            cover((0, 1, 0, 64, (0,)), (0, 1, 16, 32, (1,))),
            r"columns \[16, 64\) are placed twice",
        ),
        (cover((0, 2, 0, 64, (0,)), (1, 3, 0, 64, (1,))), "expected bucket 0 to 1 of 2"),
        (cover((2, 2, 0, 64, (0,))), "expected bucket 0 to 1 of 2"),
        (cover((0, 1, 0, 68, (0,))), r"columns \[0, 68\): expected columns inside \[0, 64\)"),
        (cover((0, 1, 8, 8, (0,))), r"expected columns inside \[0, 64\), and at least one"),
        (
            cover((0, 1, 0, 30, (0,)), (0, 1, 30, 64, (0,))),
            "columns are cut at multiples of 4, got 30",
        ),
        (cover((0, 1, 0, 64, ())), "held by no rank"),
        (cover((0, 1, 0, 64, (2, 2))), "rank 2 is listed twice"),
        (cover((0, 1, 0, 64, (9,))), "rank 9 does not exist; .* 0 to 3: .* at least 10 ranks"),
        (Placement(SHAPES[:1], (Tile(4, 0, 1, 0, 64, (0,)),), 4), "a tile belongs to table 4"),
        (Placement(SHAPES[:1] * 2, (), 4), "table 'user' is listed twice"),
    ],
)
def test_what_is_wrong_with_a_placement_is_named(placement: Placement, message: str) -> None:
    with pytest.raises(PlacementError, match=message):
        placement.validate(range(4), range(4))


@pytest.mark.parametrize(
    ("holders", "valid"),
    [
        ((2,), True),
        ((2, 3), True),
        ((0, 1), True),  # data-parallel: every dense rank reads its own replica
        ((0, 1, 3), True),
        ((0,), False),
        ((0, 3), False),
    ],
)
def test_dense_ranks_hold_only_what_all_of_them_hold(holders: Sequence[int], valid: bool) -> None:
    placement = cover((0, 1, 0, 64, tuple(holders)))
    if valid:
        placement.validate([2, 3], [0, 1])
        return
    with pytest.raises(
        PlacementError,
        match=r"rank 0 is no embedding rank; expected some of 2-3, or .* every dense rank \(0-1\)",
    ):
        placement.validate([2, 3], [0, 1])


def test_it_prints_as_a_table() -> None:
    tiles = (
        *Cut(rows=2, columns=2, ranks=(0, 1, 2, 3)).tiles(0, SHAPES[0]),
        Tile(1, 0, 1, 0, 8, (3,)),
        Tile(1, 0, 1, 8, 32, (0,)),
    )
    placement = Placement(SHAPES, tiles, 4)

    assert str(placement).splitlines() == [
        "table     rows  dim  cut               ranks",
        "user     1,000   64  row 2 x column 2  0-3",
        "item   dynamic   32  2 tiles           0,3",
    ]
    assert placement.describe([1 << 20, 5]).splitlines()[1].endswith("0-3     1,048,576")
