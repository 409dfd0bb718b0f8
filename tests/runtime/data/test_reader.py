"""The reader itself: malformed rows and shards, positions, large batches."""

import tracemalloc
from dataclasses import replace
from itertools import chain
from pathlib import Path

import pytest

from fourfold.runtime.data import holdout, lines
from fourfold.runtime.data.reader import DataConfig, open_reader
from fourfold.runtime.errors import ConfigError, DataError

ROWS = 100


@pytest.fixture
def config(tmp_path: Path) -> DataConfig:
    """Rows whose only id is their number; every seventh one is malformed."""
    for part in range(2):
        numbers = range(part * 60, min(part * 60 + 60, ROWS))
        text = "".join(f"{'x' if i % 7 == 3 else i % 2},{i}\n" for i in numbers)
        (tmp_path / f"{part}.csv").write_text("y,i\n" + text)
    return DataConfig(kind="csv", paths=(str(tmp_path),), label="y", sparse=("i",), on_error="skip")


def ids_of_batches(config: DataConfig, shard: int, shards: int, size: int) -> list[list[int]]:
    with open_reader(config, shard=shard, shards=shards, batch_size=size) as reader:
        return [batch.ids.tolist() for batch in reader]


@pytest.mark.parametrize("size", [1, 5, 32])
@pytest.mark.parametrize("shards", [1, 2, 3, 7])
def test_skipped_rows_keep_their_place(shards: int, size: int, config: DataConfig):
    """Global batches are the same rows whatever the number of shards, less the malformed ones."""
    expected = [
        [i for i in range(at, min(at + size, ROWS)) if i % 7 != 3] for at in range(0, ROWS, size)
    ]
    parts = [ids_of_batches(config, shard, shards, size) for shard in range(shards)]

    assert [list(chain(*batch)) for batch in zip(*parts, strict=True)] == expected


def test_skipped_rows_are_counted_by_the_shard_that_has_them(config: DataConfig):
    readers = [open_reader(config, shard=d, shards=3, batch_size=30) for d in range(3)]
    for reader in readers:
        assert reader.skipped == 0
        list(reader)
        reader.close()

    assert sum(reader.skipped for reader in readers) == len(range(3, ROWS, 7))


def test_row_of_another_split_is_not_looked_at(config: DataConfig):
    """A malformed row is training's or evaluation's fault, never that of both."""
    config = replace(config, holdout=0.5)
    skipped = 0
    for split in ("train", "eval"):
        with open_reader(config, shard=0, shards=1, batch_size=9, split=split) as reader:
            list(reader)
            skipped += reader.skipped

    assert skipped == len(range(3, ROWS, 7))


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_batch_may_be_larger_than_a_piece(share: float, config: DataConfig, monkeypatch):
    config = replace(config, holdout=share)
    whole = ids_of_batches(config, 1, 2, 24)
    monkeypatch.setattr(holdout, "PIECE", 5)
    monkeypatch.setattr(lines, "BLOCK", 11)

    assert ids_of_batches(config, 1, 2, 24) == whole
    assert len(whole) > 1


def test_files_with_rows_of_other_shards_only(tmp_path: Path):
    """More files than rows, more shards than files, an id of each kind of place."""
    for i in range(5):
        (tmp_path / f"{i}.csv").write_text(f"y,i\n1,{i}\n")
    config = DataConfig(kind="csv", paths=(str(tmp_path),), label="y", sparse=("i",))
    parts = [ids_of_batches(config, shard, 8, 16) for shard in range(8)]

    assert [i for (batch,) in parts for i in batch] == list(range(5))


def test_resumed_reader_names_the_right_line(config: DataConfig):
    """Line numbers after a seek count from the start of the file."""
    with open_reader(config, shard=0, shards=1, batch_size=30) as reader:
        reader.next_batch()
        position = reader.position()
    config = replace(config, on_error="raise")
    with (
        open_reader(config, shard=0, shards=1, batch_size=30, position=position) as reader,
        pytest.raises(DataError, match=r"0\.csv, line 33"),  # row 31 and the header
    ):
        reader.next_batch()


def test_position_beyond_the_file(config: DataConfig):
    with open_reader(config, shard=0, shards=1, batch_size=30) as reader:
        reader.next_batch()
        position = reader.position()
    (Path(config.paths[0]) / "0.csv").write_text("y,i\n1,1\n")
    with pytest.raises(DataError, match=r"0\.csv: ends at byte 8, but the saved position is at"):
        open_reader(config, shard=0, shards=1, batch_size=30, position=position)


def test_position_of_the_other_split(config: DataConfig):
    config = replace(config, holdout=0.5)
    with open_reader(config, shard=0, shards=1, batch_size=30) as reader:
        position = reader.position()
    with pytest.raises(DataError, match="position is in the train data, not eval"):
        open_reader(config, shard=0, shards=1, batch_size=9, split="eval", position=position)


def test_arguments_that_cannot_be(config: DataConfig):
    with pytest.raises(ConfigError, match=r"shard must be in \[0, 2\), got 2"):
        open_reader(config, shard=2, shards=2, batch_size=9)
    with pytest.raises(ConfigError, match="batch_size must be at least 1, got 0"):
        open_reader(config, shard=0, shards=2, batch_size=0)
    with pytest.raises(ConfigError, match=r"set data\.eval_paths or data\.holdout"):
        open_reader(config, shard=0, shards=2, batch_size=9, split="eval")
    with pytest.raises(DataError, match=r"data\.paths is empty"):
        open_reader(DataConfig(), shard=0, shards=2, batch_size=9)


def test_eval_paths_are_read_whole(config: DataConfig, tmp_path: Path):
    (tmp_path / "eval").mkdir()
    (tmp_path / "eval" / "0.csv").write_text("y,i\n1,7\n")
    config = replace(config, eval_paths=(str(tmp_path / "eval"),))
    with open_reader(config, shard=0, shards=1, batch_size=9, split="eval") as reader:
        assert [batch.ids.tolist() for batch in reader] == [[7]]


def test_memory_is_bounded(tmp_path: Path):
    """Reading 42 MB takes a few blocks of memory, not the file."""
    line = "1," + "7" * 18 + "\n"
    with (tmp_path / "log.csv").open("w") as file:
        file.write("y,i\n")
        for _ in range(20):
            file.write(line * 100_000)
    config = DataConfig(kind="csv", paths=(str(tmp_path),), label="y", sparse=("i",))
    tracemalloc.start()
    try:
        with open_reader(config, shard=3, shards=64, batch_size=4096) as reader:
            rows = sum(batch.size for batch in reader)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert rows == 489 * 64
    assert peak < 10 << 20
