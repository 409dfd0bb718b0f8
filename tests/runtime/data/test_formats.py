"""What holds for every format: round trips, shards, positions, held-out rows."""

import gzip
import json
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fourfold.runtime.data.batch import Batch
from fourfold.runtime.data.convert import convert
from fourfold.runtime.data.hashing import text_id
from fourfold.runtime.data.reader import DataConfig, Reader, open_reader

# A sample as plain Python: label, dense values, bags of (id, weight).
Sample = tuple[int, tuple[float, ...], tuple[tuple[tuple[int, float], ...], ...]]
Rows = list[dict[str, object]]
Write = Callable[[Rows, Path], DataConfig]

COUNTS = tuple(f"I{i}" for i in range(1, 14))
CODES = tuple(f"C{i}" for i in range(1, 27))


def samples_of(batch: Batch) -> list[Sample]:
    """Take a batch apart by the definition of its layout."""
    features = (len(batch.offsets) - 1) // batch.size if batch.size else 0
    weights = np.ones(len(batch.ids)) if batch.weights is None else batch.weights
    samples = []
    for b in range(batch.size):
        bags = []
        for f in range(features):
            at = slice(batch.offsets[f * batch.size + b], batch.offsets[f * batch.size + b + 1])
            bags.append(tuple(zip(batch.ids[at].tolist(), weights[at].tolist(), strict=True)))
        samples.append((int(batch.label[b]), tuple(batch.dense[b].tolist()), tuple(bags)))
    return samples


def open_(config: DataConfig, shard: int = 0, shards: int = 1, size: int = 4, **more) -> Reader:
    return open_reader(config, shard=shard, shards=shards, batch_size=size, **more)


def read_all(config: DataConfig, **more) -> list[Sample]:
    with open_(config, **more) as reader:
        return [sample for batch in reader for sample in samples_of(batch)]


# --- Criteo ---------------------------------------------------------------------------------------

criteo_rows = st.lists(
    st.fixed_dictionaries(
        {
            "label": st.integers(0, 1),
            **{n: st.none() | st.integers(-3, 10**15 - 1) for n in COUNTS},
            **{n: st.none() | st.integers(0, 2**32 - 1) for n in CODES},
        }
    ),
    min_size=1,
    max_size=9,
)


def criteo_line(row: dict[str, object]) -> str:
    counts = ["" if row[n] is None else str(row[n]) for n in COUNTS]
    codes = ["" if row[n] is None else f"{row[n]:08x}" for n in CODES]
    return "\t".join([str(row["label"]), *counts, *codes])


def criteo_sample(row: dict[str, object]) -> Sample:
    counts = np.array([max(row[n] or 0, 0) for n in COUNTS], np.float32)
    return (
        row["label"],
        tuple(np.log1p(counts).tolist()),
        tuple(((row[n] or 0, 1.0),) for n in CODES),
    )


def write_criteo(rows: Rows, folder: Path) -> DataConfig:
    """Two plain files, one with Windows line ends and no last one."""
    cut = len(rows) // 2 + 1
    lines = [criteo_line(row) for row in rows]
    (folder / "day_2").write_bytes("".join(f"{line}\n" for line in lines[:cut]).encode())
    if lines[cut:]:
        (folder / "day_10").write_bytes("\r\n".join(lines[cut:]).encode())
    return DataConfig(paths=(str(folder / "day_*"),))


def write_criteo_gzip(rows: Rows, folder: Path) -> DataConfig:
    """One gzip file of two members, as `cat a.gz b.gz` makes it."""
    lines = [f"{criteo_line(row)}\n".encode() for row in rows]
    members = gzip.compress(b"".join(lines[:2])) + gzip.compress(b"".join(lines[2:]))
    (folder / "log.gz").write_bytes(members)
    return DataConfig(paths=(str(folder / "log.gz"),))


# --- Named columns --------------------------------------------------------------------------------

WORDS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20)
FLOATS = st.floats(-(2.0**100), 2.0**100, width=32)

table_rows = st.lists(
    st.fixed_dictionaries(
        {
            "click": st.integers(0, 1),
            "price": st.none() | FLOATS,
            "age": st.none() | FLOATS,
            "user": st.none() | st.integers(0, 2**63 - 1),
            "word": st.none() | WORDS,
            "tags": st.lists(st.tuples(st.integers(0, 2**63 - 1), FLOATS), max_size=4),
        }
    ),
    min_size=1,
    max_size=9,
)

MAPPING = {
    "label": "click",
    "dense": ("price", "age"),
    "sparse": ("user", "word", "tags"),
    "weights": {"tags": "tag weights"},
}


def table_sample(row: dict[str, object]) -> Sample:
    word = () if row["word"] is None else ((text_id(row["word"]), 1.0),)
    user = () if row["user"] is None else ((row["user"], 1.0),)
    return row["click"], (row["price"] or 0.0, row["age"] or 0.0), (user, word, tuple(row["tags"]))


def write_csv(rows: Rows, folder: Path) -> DataConfig:
    """Columns in another order than the mapping's, one without a name, a byte order mark."""

    def cell(value: object) -> str:
        text = "" if value is None else str(value)
        return '"' + text.replace('"', '""') + '"' if set(text) & set('",') else text

    lines = [",word,user,click,tag weights,tags,age,price"]
    for i, row in enumerate(rows):
        tags = "|".join(str(tag) for tag, _ in row["tags"])
        weights = "|".join(repr(weight) for _, weight in row["tags"])
        cells = [i, row["word"], row["user"], row["click"], weights, tags, row["age"], row["price"]]
        lines.append(",".join(map(cell, cells)))
    (folder / "log.csv").write_text("\n".join(lines), encoding="utf-8-sig")
    return DataConfig(
        kind="csv",
        paths=(str(folder),),
        **MAPPING,
        hashed=("word",),
        lists=("tags",),
        list_separator="|",
    )


def write_parquet(rows: Rows, folder: Path) -> DataConfig:
    """Two files of small row groups."""
    cut = len(rows) // 3
    for name, part in (("a.parquet", rows[:cut]), ("b.parquet", rows[cut:])):
        table = pa.table(
            {
                "tag weights": pa.array([[w for _, w in r["tags"]] for r in part], LIST_OF_FLOATS),
                "unused": pa.array(["x" for _ in part], pa.string()),
                "tags": pa.array([[t for t, _ in r["tags"]] for r in part], LIST_OF_IDS),
                "click": pa.array([bool(r["click"]) for r in part], pa.bool_()),
                "word": pa.array([r["word"] for r in part], pa.string()).dictionary_encode(),
                "user": pa.array([r["user"] for r in part], pa.uint64()),
                "price": pa.array([r["price"] for r in part], pa.float32()),
                "age": pa.array([r["age"] for r in part], pa.float64()),
            }
        )
        pq.write_table(table, folder / name, row_group_size=max(2, len(rows) // 10))
    return DataConfig(kind="parquet", paths=(str(folder),), **MAPPING)


LIST_OF_IDS = pa.list_(pa.uint64())
LIST_OF_FLOATS = pa.list_(pa.float32())


def write_hdf5(rows: Rows, folder: Path) -> DataConfig:
    """What `convert` makes of the CSV file."""
    (folder / "csv").mkdir()
    convert(write_csv(rows, folder / "csv"), folder / "log.h5")
    return DataConfig(kind="hdf5", paths=(str(folder / "log.h5"),))


def write_criteo_hdf5(rows: Rows, folder: Path) -> DataConfig:
    """What `convert` makes of Criteo's files, in two files."""
    for i, part in enumerate((rows[:1], rows[1:])):
        if part:
            (folder / str(i)).mkdir()
            convert(write_criteo(part, folder / str(i)), folder / f"part-{i}.h5")
    return DataConfig(kind="hdf5", paths=(str(folder / "part-*.h5"),))


def write_criteo_parquet(rows: Rows, folder: Path) -> DataConfig:
    """What `convert` makes of Criteo's files."""
    (folder / "tsv").mkdir()
    convert(write_criteo(rows, folder / "tsv"), folder / "log.parquet")
    return DataConfig(
        kind="parquet",
        paths=(str(folder / "log.parquet"),),
        dense=COUNTS,
        sparse=CODES,
        dense_transform="log1p",
    )


FORMATS = {
    "tsv": (criteo_rows, criteo_sample, write_criteo),
    "tsv.gz": (criteo_rows, criteo_sample, write_criteo_gzip),
    "tsv to hdf5": (criteo_rows, criteo_sample, write_criteo_hdf5),
    "tsv to parquet": (criteo_rows, criteo_sample, write_criteo_parquet),
    "csv": (table_rows, table_sample, write_csv),
    "parquet": (table_rows, table_sample, write_parquet),
    "csv to hdf5": (table_rows, table_sample, write_hdf5),
}


@pytest.mark.parametrize("name", FORMATS)
def test_rows_come_back_as_they_were_written(name: str):
    rows, sample, write = FORMATS[name]

    @settings(max_examples=25, deadline=None)
    @given(rows, st.integers(1, 12))
    def check(rows: Rows, size: int) -> None:
        with tempfile.TemporaryDirectory() as folder:
            config = write(rows, Path(folder))

            assert read_all(config, size=size) == [sample(row) for row in rows]

    check()


# --- Longer data, the same in every format --------------------------------------------------------

ROWS = 203


@pytest.fixture(scope="module", params=FORMATS)
def data(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    """A config over `ROWS` rows, and what a reader must give."""
    rng = np.random.default_rng(1)
    _, sample, write = FORMATS[request.param]
    rows: Rows = []
    for i in range(ROWS):
        row: dict[str, object] = {"label": i % 2, "click": i % 2, "price": float(i), "age": None}
        row |= {n: int(v) for n, v in zip(COUNTS, rng.integers(-3, 999, 13), strict=True)}
        row |= {n: int(v) for n, v in zip(CODES, rng.integers(0, 99, 26), strict=True)}
        row |= {"user": i, "word": f"word {i % 7}", "tags": [(j, 0.5) for j in range(i % 4)]}
        rows.append(row)
    config = write(rows, tmp_path_factory.mktemp("data"))
    return config, [sample(row) for row in rows]


def global_batches(config: DataConfig, shards: int, size: int, **more) -> list[list[Sample]]:
    """Put the shards' batches together again, batch by batch."""
    readers = [open_(config, d, shards, size, **more) for d in range(shards)]
    batches = list(zip(*readers, strict=True))  # strict: all shards give as many batches
    for reader in readers:
        reader.close()
    return [[s for part in parts for s in samples_of(part)] for parts in batches]


@pytest.mark.parametrize("size", [1, 7, 64, 203, 500])
def test_shards_together_are_the_whole(data, size: int):
    config, samples = data
    expected = [samples[at : at + size] for at in range(0, ROWS, size)]
    for shards in (1, 2, 3, 5):
        assert global_batches(config, shards, size) == expected


def test_shards_are_even(data):
    config, _ = data
    readers = [open_(config, d, 3, 64) for d in range(3)]
    sizes = [[batch.size for batch in reader] for reader in readers]

    assert sizes == [[21, 21, 21, 11], [21, 21, 21, 0], [22, 22, 22, 0]]


@pytest.mark.parametrize("holdout", [0.0, 0.3])
def test_resume_at_any_batch_equals_going_on(data, holdout: float):
    config, _ = data
    config = replace(config, holdout=holdout)
    whole = global_batches(config, 1, 16)
    with open_(config, 1, 2, 16) as reader:
        for done in range(len(whole) + 1):
            position = json.loads(json.dumps(reader.position()))

            assert global_batches(config, 3, 16, position=position) == whole[done:]

            reader.next_batch()


def test_positions_agree_between_shards(data):
    config, _ = data
    readers = [open_(config, d, 4, 16) for d in range(4)]
    while readers[0].next_batch() is not None:
        for reader in readers[1:]:
            reader.next_batch()

            assert reader.position() == readers[0].position()


def test_held_out_rows_are_the_others(data):
    config, samples = data
    config = replace(config, holdout=0.2)
    batches = global_batches(config, 2, 16), global_batches(config, 3, 16, split="eval")
    train, held_out = ([s for batch in part for s in batch] for part in batches)

    assert {len(batch) for part in batches for batch in part[:-1]} == {16}
    assert sorted(train + held_out) == sorted(samples)
    assert 0.1 * ROWS < len(held_out) < 0.3 * ROWS
    # Not in a pattern: several gaps between held-out rows occur.
    order = [samples.index(s) for s in held_out]
    assert order == sorted(order)
    assert len(set(np.diff(order).tolist())) > 4


def test_dense_transform_can_be_chosen(data):
    config, samples = data
    expected = np.array([s[1] for s in samples], np.float32)
    plain = np.array([s[1] for s in read_all(replace(config, dense_transform="none"))])
    logs = np.array([s[1] for s in read_all(replace(config, dense_transform="log1p"))], np.float32)

    np.testing.assert_array_equal(logs, np.log1p(np.maximum(plain.astype(np.float32), 0)))
    assert np.array_equal(expected, logs) or np.array_equal(expected, plain)


def test_arrays_are_as_promised(data):
    """Types and layout, and writable: torch shares their memory."""
    config, _ = data
    with open_(config, size=50) as reader:
        for batch in reader:
            kinds = {"dense": "f4", "label": "f4", "ids": "i8", "offsets": "i8", "weights": "f4"}
            for name, kind in kinds.items():
                array = getattr(batch, name)
                if array is not None:
                    assert array.dtype == np.dtype(kind)
                    assert array.flags.c_contiguous
                    assert array.flags.writeable
            assert batch.dense.shape == (batch.size, len(reader.schema.dense))
            assert batch.offsets.shape == (batch.size * len(reader.schema.sparse) + 1,)
            assert (batch.weights is not None) == reader.schema.weighted


def test_schema_is_known_before_reading(data):
    config, samples = data
    with open_(config) as reader:
        schema = reader.schema

    assert len(schema.dense) == len(samples[0][1])
    assert len(schema.sparse) == len(samples[0][2])
