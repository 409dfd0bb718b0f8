"""Roles for any mix of rank counts; every rank has one, or a clear error."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fourfold.runtime.errors import ConfigError
from fourfold.runtime.roles import Role, RolesConfig, assign_roles, show_ranks


def test_everyone_does_both_by_default() -> None:
    roles = assign_roles(3, RolesConfig())

    assert roles.dense == roles.embedding == (0, 1, 2)
    assert [roles[rank] for rank in range(3)] == [Role.COLOCATED] * 3
    assert str(roles) == "colocated 0-2"


def test_counts_take_the_first_and_the_last_ranks() -> None:
    roles = assign_roles(4, RolesConfig(dense=2, embedding=2))

    assert (roles.dense, roles.embedding) == ((0, 1), (2, 3))
    assert str(roles) == "dense 0-1, embedding 2-3"


def test_counts_may_overlap() -> None:
    roles = assign_roles(4, RolesConfig(dense=4, embedding=2))

    assert (roles.dense, roles.embedding) == ((0, 1, 2, 3), (2, 3))
    assert [roles[rank] for rank in range(4)] == [Role.DENSE] * 2 + [Role.COLOCATED] * 2


def test_lists_name_ranks_in_any_order() -> None:
    roles = assign_roles(4, RolesConfig(dense=(3, 0), embedding=(2, 1, 0)))

    assert (roles.dense, roles.embedding) == ((0, 3), (0, 1, 2))
    assert str(roles) == "dense 3, embedding 1-2, colocated 0"


def test_a_list_beside_a_count() -> None:
    roles = assign_roles(3, RolesConfig(dense=(2,), embedding=3))

    assert (roles.dense, roles.embedding) == ((2,), (0, 1, 2))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dense": 2}, "embedding = 0 leaves no embedding rank"),
        ({"embedding": 2}, "dense = 0 leaves no dense rank"),
        ({"dense": (), "embedding": (0,)}, r"dense = \[\] leaves no dense rank"),
        ({"dense": (0,), "embedding": ()}, r"embedding = \[\] leaves no embedding rank"),
        ({"dense": (), "embedding": ()}, "leaves no dense rank"),
        ({"dense": (1, 0, 1), "embedding": 1}, "dense names rank 1 twice"),
        ({"dense": 1, "embedding": (0, -1)}, "embedding names rank -1"),
        ({"dense": -1, "embedding": 1}, "dense = -1"),
    ],
)
def test_impossible_whatever_the_world(arguments: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RolesConfig(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dense": 5, "embedding": 1}, r"dense wants 5 ranks, but the world has 4.*at least 5"),
        ({"dense": 1, "embedding": 9}, r"embedding wants 9 ranks, but the world has 4"),
        ({"dense": (0, 4), "embedding": 4}, r"dense wants rank 4, but the world has 4.*0 to 3"),
        ({"dense": 1, "embedding": 2}, "ranks 1 of the 4 have no role"),
        ({"dense": (0,), "embedding": (3,)}, "ranks 1-2 of the 4 have no role"),
    ],
)
def test_impossible_in_this_world(arguments: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        assign_roles(4, RolesConfig(**arguments))


@given(st.data())
def test_any_mix_gives_every_rank_a_role_or_an_error(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 6))
    count = st.integers(1, 7) | st.lists(st.integers(0, 6), min_size=1, unique=True).map(tuple)
    config = RolesConfig(dense=data.draw(count), embedding=data.draw(count))

    try:
        roles = assign_roles(size, config)
    except ConfigError:
        return

    assert sorted({*roles.dense, *roles.embedding}) == list(range(size))
    for rank in range(size):
        is_dense, is_embedding = rank in roles.dense, rank in roles.embedding
        expected = {
            (True, True): Role.COLOCATED,
            (True, False): Role.DENSE,
            (False, True): Role.EMBEDDING,
        }
        assert roles[rank] is expected[is_dense, is_embedding]
    for wanted, given_ranks in ((config.dense, roles.dense), (config.embedding, roles.embedding)):
        assert len(given_ranks) == (wanted if isinstance(wanted, int) else len(wanted))


def test_show_ranks() -> None:
    assert show_ranks([6, 1, 0, 2, 4]) == "0-2,4,6"
    assert show_ranks([]) == ""
