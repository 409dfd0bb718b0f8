"""Parquet: types, values that cannot be, damaged files."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fourfold.runtime.data.batch import Batch
from fourfold.runtime.data.hashing import text_id
from fourfold.runtime.data.reader import DataConfig, open_reader
from fourfold.runtime.errors import DataError


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log.parquet"


def read(path: Path, size: int = 100, **changes) -> tuple[list[Batch], int]:
    mapping = {"label": "click", "dense": ("price",), "sparse": ("user",)}
    config = DataConfig(kind="parquet", paths=(str(path),), **(mapping | changes))
    with open_reader(config, shard=0, shards=1, batch_size=size) as reader:
        return list(reader), reader.skipped


def write(path: Path, **columns: pa.Array) -> None:
    n = len(next(iter(columns.values())))
    defaults = {"click": pa.array([1] * n), "price": pa.array([0.5] * n), "user": pa.array([7] * n)}
    pq.write_table(pa.table(defaults | columns), path, row_group_size=3)


TYPES = {
    "integers": (pa.array([3, None, 4], pa.int16()), [3, 4]),
    "big integers": (pa.array([2**63 - 1, None, 0], pa.uint64()), [2**63 - 1, 0]),
    "booleans": (pa.array([True, None, False]), [1, 0]),
    "whole floats": (pa.array([3.0, None, 4.0]), [3, 4]),
    "strings": (pa.array(["a", None, "b"]), [text_id("a"), text_id("b")]),
    "empty strings": (pa.array(["a", "", "b"]), [text_id("a"), text_id("b")]),
    "large strings": (pa.array(["a", None, "b"], pa.large_string()), [text_id("a"), text_id("b")]),
    "binary": (pa.array([b"a", None, b"\xff"], pa.binary()), [text_id("a"), text_id(b"\xff")]),
    "categories": (
        pa.array(["a", None, "b"]).dictionary_encode(),
        [text_id("a"), text_id("b")],
    ),
}


@pytest.mark.parametrize("name", TYPES)
def test_types_of_ids(name: str, log: Path):
    column, ids = TYPES[name]
    write(log, user=column)
    (batch,), _ = read(log)

    assert batch.ids.tolist() == ids
    assert batch.lengths().tolist() == [[1, 0, 1]]


LISTS = {
    "integers": (pa.array([[3, 4], None, [5]]), [3, 4, 5]),
    "large": (pa.array([[3, 4], None, [5]], pa.large_list(pa.int32())), [3, 4, 5]),
    "strings": (
        pa.array([["a", "b"], None, ["c"]]),
        [text_id("a"), text_id("b"), text_id("c")],
    ),
}


@pytest.mark.parametrize("name", LISTS)
def test_lists(name: str, log: Path):
    column, ids = LISTS[name]
    write(log, user=column)
    (batch,), _ = read(log)

    assert batch.ids.tolist() == ids
    assert batch.lengths().tolist() == [[2, 0, 1]]


def test_integers_may_be_hashed_as_text(log: Path):
    write(log, user=pa.array([12, None]))
    (batch,), _ = read(log, hashed=("user",))

    assert batch.ids.tolist() == [text_id("12")]


def test_texts_may_be_split(log: Path):
    write(log, user=pa.array(["a,b", "", None, "c"]))
    (batch,), _ = read(log, lists=("user",))

    assert batch.ids.tolist() == [text_id("a"), text_id("b"), text_id("c")]
    assert batch.lengths().tolist() == [[2, 0, 0, 1]]


MALFORMED = {
    "nan": ({"price": pa.array([0.0, float("nan")])}, "price: expected a finite number, got nan"),
    "infinite": ({"price": pa.array([0.0, float("inf")])}, "price: expected a finite number"),
    "no label": ({"click": pa.array([1, None])}, "click: expected 0 or 1, got nothing"),
    "label nan": ({"click": pa.array([1.0, float("nan")])}, "click: expected 0 or 1, got nan"),
    "label 2": ({"click": pa.array([1, 2])}, "click: expected 0 or 1, got 2"),
    "negative": ({"user": pa.array([1, -1])}, "user: expected a whole number in [0, 2^63), got -1"),
    "huge": ({"user": pa.array([1, 2**63], pa.uint64())}, "user: expected a whole number"),
    "fraction": ({"user": pa.array([1.0, 0.5])}, "user: expected a whole number"),
    "null in list": ({"user": pa.array([[1], [2, None]])}, "user: expected a whole number"),
    "empty in list": ({"user": pa.array([["a"], ["b", ""]])}, "user: expected text, got ''"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_row_is_named_or_dropped(case: str, log: Path):
    columns, message = MALFORMED[case]
    write(log, **columns)
    with pytest.raises(DataError) as error:
        read(log, size=1)

    assert f"{log}, row 1, column {message}" in str(error.value)

    batches, skipped = read(log, size=1, on_error="skip")
    assert skipped == 1
    assert [b.size for b in batches] == [1, 0]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"user": pa.array([1, 2], pa.timestamp("us"))}, "'user': expected whole numbers or text"),
        ({"price": pa.array([[1.0], [2.0]])}, "'price': expected one number a row, but its type"),
        ({"click": pa.array([1, 2], pa.date32())}, "'click': expected numbers, but its type is"),
    ],
)
def test_types_that_cannot_be(columns: dict[str, pa.Array], message: str, log: Path):
    write(log, **columns)
    with pytest.raises(DataError) as error:
        read(log)

    assert f"{log}: column {message}" in str(error.value)


def test_missing_column(log: Path):
    write(log, usr=pa.array([1]))
    with pytest.raises(DataError, match="there is no column 'users'; nearest: 'user'"):
        read(log, sparse=("users",))


@pytest.mark.parametrize("keep", [0, 3, 100, -1])
def test_truncated_file(keep: int, log: Path):
    write(log, user=pa.array(range(10)))
    log.write_bytes(log.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"log\.parquet: its footer cannot be read"):
        read(log)


def test_altered_pages(log: Path):
    table = pa.table({"click": [1] * 5000, "price": [0.5] * 5000, "user": range(5000)})
    pq.write_table(table, log, write_page_checksum=True, use_dictionary=False, compression="none")
    data = bytearray(log.read_bytes())
    at = bytes(data).find((4321).to_bytes(8, "little"))
    data[at] ^= 1
    log.write_bytes(data)
    with pytest.raises(DataError, match=r"log\.parquet: rows from 0 cannot be read"):
        read(log)


def test_row_groups_of_any_size(tmp_path: Path):
    for i, (rows, group) in enumerate(((5, 2), (0, 1), (7, 7), (4, 1))):
        user = pa.array(range(i * 10, i * 10 + rows), pa.int64())
        table = pa.table({"click": [0] * rows, "price": [0.0] * rows, "user": user})
        pq.write_table(table.cast(SCHEMA), tmp_path / f"{i}.parquet", row_group_size=group)
    expected = [*range(5), *range(20, 27), *range(30, 34)]
    for size in (1, 3, 16, 20):
        batches, _ = read(tmp_path, size=size)
        assert [i for b in batches for i in b.ids] == expected


SCHEMA = pa.schema([("click", pa.int8()), ("price", pa.float32()), ("user", pa.int64())])
