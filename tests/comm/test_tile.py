"""One constructor for every way to cut a table: a grid of tiles laid over a list of ranks."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fourfold.comm.cut import Cut, column_bounds, parse_ranks, ranks_text
from fourfold.comm.errors import PlacementError
from fourfold.comm.tile import Shape, Tile

TABLE = Shape("user", 64, 1000)


@st.composite
def shapes(draw: st.DrawFn) -> Shape:
    return Shape("t", draw(st.integers(1, 300)), draw(st.none() | st.integers(1, 10**12)))


@st.composite
def cuts(draw: st.DrawFn, shape: Shape) -> Cut:
    """Any cut that the shape can have, on ranks that are dealt in turn or listed one per cell."""
    rows = draw(st.integers(1, 6))
    columns = draw(st.integers(1, max(1, min(5, shape.dim // 4))))
    replicas = draw(st.integers(1, 3))
    layer = rows * columns
    # Replicas need different ranks, so a list that is dealt in turn must not come round to a tile.
    length = draw(
        st.sampled_from(
            [
                n
                for n in range(1, layer * replicas + 1)
                if layer * replicas % n == 0
                and all(copy * layer % n for copy in range(1, replicas))
            ]
        )
    )
    ranks = draw(st.lists(st.integers(0, 99), min_size=length, max_size=length, unique=True))
    return Cut(rows=rows, columns=columns, replicas=replicas, ranks=tuple(ranks))


@given(st.data())
def test_a_cut_covers_every_bucket_and_column_once(data: st.DataObject) -> None:
    shape = data.draw(shapes())
    cut = data.draw(cuts(shape))
    tiles = cut.tiles(3, shape)
    covered = [(tile.bucket, column) for tile in tiles for column in range(tile.start, tile.stop)]

    assert sorted(covered) == list(itertools.product(range(cut.rows), range(shape.dim)))
    assert all(tile.table == 3 and tile.buckets == cut.rows for tile in tiles)
    assert all(len(set(tile.ranks)) == cut.replicas for tile in tiles)
    assert {rank for tile in tiles for rank in tile.ranks} == set(cut.ranks)
    assert list(tiles) == sorted(tiles, key=lambda tile: tile.order)


@given(st.data())
def test_ranks_hold_equally_many_tiles(data: st.DataObject) -> None:
    shape = data.draw(shapes())
    cut = data.draw(cuts(shape))
    held = [rank for tile in cut.tiles(0, shape) for rank in tile.ranks]

    assert len({held.count(rank) for rank in cut.ranks}) == 1


@given(st.data())
def test_column_ranges_are_multiples_of_four_and_even(data: st.DataObject) -> None:
    shape = data.draw(shapes())
    columns = data.draw(st.integers(1, max(1, shape.dim // 4)))
    bounds = column_bounds(shape, columns)
    widths = [stop - start for start, stop in itertools.pairwise(bounds)]

    assert bounds[0] == 0
    assert bounds[-1] == shape.dim
    assert all(bound % 4 == 0 for bound in bounds[:-1])
    assert columns == 1 or min(widths) >= 4
    assert max(widths) - min(widths) < 4 + 4


@given(st.data())
def test_the_cut_is_found_again_from_its_tiles(data: st.DataObject) -> None:
    shape = data.draw(shapes())
    tiles = data.draw(cuts(shape)).tiles(0, shape)
    found = Cut.of(data.draw(st.permutations(tiles)), shape)

    assert found is not None
    assert found.tiles(0, shape) == tiles


def test_an_irregular_list_of_tiles_is_no_cut() -> None:
    tiles = [
        Tile(0, 0, 2, 0, 64, (0,)),
        Tile(0, 1, 2, 0, 32, (1,)),
        Tile(0, 1, 2, 32, 64, (2,)),
    ]

    assert Cut.of(tiles, TABLE) is None
    assert Cut.of(tiles[1:], TABLE) is None
    assert Cut.of([], TABLE) is None


def test_the_schemes_that_have_names() -> None:
    """Ranks 0-3 are one node, 4-7 the other."""
    everyone = tuple(range(8))
    table_wise = Cut(ranks=(5,))
    row_wise = Cut(rows=8, ranks=everyone)
    column_wise = Cut(columns=4, ranks=(0, 2, 4, 6))
    data_parallel = Cut(replicas=8, ranks=everyone)
    rows_in_a_node = Cut(rows=4, ranks=(4, 5, 6, 7))
    columns_across_nodes = Cut(rows=4, columns=2, ranks=everyone)
    grid_per_node = Cut(rows=2, columns=2, replicas=2, ranks=everyone)

    def lie(cut: Cut) -> list[tuple[int, int, tuple[int, ...]]]:
        return [(tile.bucket, tile.start, tile.ranks) for tile in cut.tiles(0, TABLE)]

    assert lie(table_wise) == [(0, 0, (5,))]
    assert lie(row_wise) == [(k, 0, (k,)) for k in range(8)]
    assert lie(column_wise) == [(0, 0, (0,)), (0, 16, (2,)), (0, 32, (4,)), (0, 48, (6,))]
    assert lie(data_parallel) == [(0, 0, everyone)]
    assert lie(rows_in_a_node) == [(k, 0, (4 + k,)) for k in range(4)]
    assert lie(columns_across_nodes) == [
        (k, column, (k + 4 * (column > 0),)) for k in range(4) for column in (0, 32)
    ]
    assert lie(grid_per_node) == [
        (0, 0, (0, 4)),
        (0, 32, (2, 6)),
        (1, 0, (1, 5)),
        (1, 32, (3, 7)),
    ]
    assert [str(cut) for cut in (table_wise, row_wise, columns_across_nodes, grid_per_node)] == [
        "whole",
        "row 8",
        "row 4 x column 2",
        "row 2 x column 2 x data 2",
    ]


@pytest.mark.parametrize(
    ("cut", "message"),
    [
        (Cut(columns=17, ranks=(0,)), "dim 64 cannot be cut into 17 .* at least 4 .* at most 16"),
        (Cut(rows=3, ranks=(0, 1)), "make 3 cells, which cannot be dealt evenly to 2 ranks"),
        (Cut(rows=2, ranks=(0, 1, 2, 3)), "make 2 cells, which cannot be dealt evenly to 4 ranks"),
        (Cut(ranks=()), r"0 ranks \(none\)"),
        (Cut(rows=0, ranks=(0,)), "rows must be 1 to 65536 pieces, got 0"),
        (Cut(replicas=-1, ranks=(0,)), "replicas must be 1 to 65536 pieces, got -1"),
        (Cut(rows=10**9, ranks=(0,)), "rows must be 1 to 65536 pieces, got 1000000000"),
    ],
)
def test_impossible_cuts_are_named(cut: Cut, message: str) -> None:
    with pytest.raises(PlacementError, match=f"table 'user': .*{message}"):
        cut.tiles(0, TABLE)


def test_a_requester_reads_its_own_replica_first() -> None:
    tile = Tile(0, 0, 1, 0, 4, (6, 1, 3))

    assert tile.ranks == (1, 3, 6)
    assert [tile.provider(rank) for rank in range(7)] == [1, 1, 6, 3, 3, 6, 6]


@given(st.lists(st.integers(0, 500), min_size=1, max_size=40))
def test_ranks_read_back(ranks: list[int]) -> None:
    assert parse_ranks(ranks_text(ranks)) == tuple(ranks)


def test_ranks_are_written_briefly() -> None:
    assert ranks_text([0, 1, 2, 3, 9, 5, 6]) == "0-3,9,5-6"
    assert parse_ranks(" 0 - 2, 7 ") == (0, 1, 2, 7)


@pytest.mark.parametrize("text", ["", "a", "3-1", "-1", "1,,2", "1-", "0-99999999", "1 2"])
def test_what_are_no_ranks(text: str) -> None:
    with pytest.raises(PlacementError, match="expected ranks and ranges"):
        parse_ranks(text)
