"""Fourfold's own files: what is written, and files that were damaged or made by others."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest

from fourfold.runtime.data.batch import Batch, Schema
from fourfold.runtime.data.convert import Converted, convert
from fourfold.runtime.data.hdf5 import Hdf5Writer
from fourfold.runtime.data.reader import DataConfig, open_reader, read_schema
from fourfold.runtime.errors import DataError

SCHEMA = Schema(dense=("price", "age"), sparse=("user", "tags"), label="click", weighted=True)


def batch(rows: int, seed: int = 0) -> Batch:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, 4, 2 * rows)
    ids = rng.integers(0, 2**63, lengths.sum())
    return Batch(
        dense=rng.random((rows, 2), np.float32),
        label=rng.integers(0, 2, rows).astype(np.float32),
        ids=ids,
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        weights=rng.random(len(ids), np.float32),
    )


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "log.h5"
    with Hdf5Writer(path, SCHEMA, dense_transform="none") as writer:
        for seed in range(3):
            writer.append(batch(5000, seed))
        writer.finish()
    return path


def read(path: Path, size: int = 5000, **changes) -> list[Batch]:
    config = DataConfig(kind="hdf5", paths=(str(path),), **changes)
    with open_reader(config, shard=0, shards=1, batch_size=size) as reader:
        return list(reader)


def assert_same(actual: Batch, expected: Batch) -> None:
    for name in ("dense", "label", "ids", "offsets", "weights"):
        np.testing.assert_array_equal(getattr(actual, name), getattr(expected, name))


def test_batches_come_back(log: Path):
    for seed, actual in enumerate(read(log)):
        assert_same(actual, batch(5000, seed))
    assert read_schema(DataConfig(kind="hdf5", paths=(str(log),))) == SCHEMA


def test_format_is_as_documented(log: Path):
    """Reads the file with h5py alone, as README.md describes it."""
    with h5py.File(log) as file:
        about = dict(file.attrs)
        data = {name: file[name][:] for name in file}
    expected = batch(5000, 0)
    row, feature = 4321, 1
    bag = slice(*expected.offsets[[feature * 5000 + row, feature * 5000 + row + 1]])

    assert about["format"] == "fourfold.data"
    assert about["version"] == 1
    assert about["rows"] == 15000
    assert about["ids"] == len(data["ids"]) == len(data["weights"]) == data["ends"][-1]
    assert about["label"] == "click"
    assert list(about["dense"]) == ["price", "age"]
    assert list(about["sparse"]) == ["user", "tags"]
    assert about["dense_transform"] == "none"
    at = int(data["ends"][row - 1] + data["lengths"][row, :feature].sum())
    ids = slice(at, at + int(data["lengths"][row, feature]))
    np.testing.assert_array_equal(data["ids"][ids], expected.ids[bag])
    np.testing.assert_array_equal(data["weights"][ids], expected.weights[bag])
    np.testing.assert_array_equal(data["dense"][row], expected.dense[row])


def test_unfinished_file_has_no_name(tmp_path: Path):
    path = tmp_path / "log.h5"

    def fail() -> None:
        with Hdf5Writer(path, SCHEMA, dense_transform="none") as writer:
            writer.append(batch(10))
            assert [p.name for p in tmp_path.iterdir()] != ["log.h5"]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("share", [0, 0.001, 0.3, 0.9, 0.9999])
def test_truncated_file_is_named(share: float, log: Path):
    data = log.read_bytes()
    log.write_bytes(data[: int(share * len(data))])
    with pytest.raises(DataError, match=r"log\.h5: the file cannot be read"):
        read(log)


@pytest.mark.parametrize("name", ["label", "dense", "lengths", "ends", "ids", "weights"])
def test_altered_byte_is_named(name: str, log: Path):
    with h5py.File(log) as file:
        dataset = file[name]
        at = dataset.id.get_chunk_info(dataset.id.get_num_chunks() - 1)
    data = bytearray(log.read_bytes())
    data[at.byte_offset + at.size // 3] ^= 4
    log.write_bytes(data)
    with pytest.raises(DataError, match=r"log\.h5: rows \d+ to \d+ cannot be read"):
        read(log, on_error="skip")


def _no_rows(file: h5py.File) -> None:
    del file.attrs["rows"]


def _cut_ids(file: h5py.File) -> None:
    file["ids"].resize(7, axis=0)


def _newer(file: h5py.File) -> None:
    file.attrs["version"] = 2


def _foreign(file: h5py.File) -> None:
    file.attrs["format"] = "other"


def _no_dense(file: h5py.File) -> None:
    del file["dense"]


def _uneven(file: h5py.File) -> None:
    file["lengths"][7, 1] += 1


def _transform(file: h5py.File) -> None:
    file.attrs["dense_transform"] = "sqrt"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_no_rows, "it was never finished: convert it again"),
        (_cut_ids, "ids: expected shape"),
        (_newer, "expected format version 1, got 2"),
        (_foreign, "expected attribute format = \"fourfold.data\", got 'other'"),
        (_no_dense, "dense"),
        (_uneven, "lengths and ends disagree"),
        (_transform, "dense_transform: expected log1p or none, got 'sqrt'"),
    ],
)
def test_file_that_is_not_right_is_named(
    change: Callable[[h5py.File], None], message: str, log: Path
):
    with h5py.File(log, "r+") as file:
        change(file)
    with pytest.raises(DataError) as error:
        read(log)

    assert str(log) in str(error.value)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("name", "row", "value", "message"),
    [
        ("label", 7, 2.0, "column click: expected 0 or 1, got 2.0"),
        ("label", 7, np.nan, "column click: expected 0 or 1, got nan"),
        ("dense", 7, np.inf, "column price: expected a finite number, got inf"),
    ],
)
def test_malformed_row_is_named_or_dropped(
    name: str, row: int, value: float, message: str, log: Path
):
    with h5py.File(log, "r+") as file:
        file[name][row] = value
    with pytest.raises(DataError) as error:
        read(log)

    assert f"{log}, row {row}, {message}" in str(error.value)
    assert [b.size for b in read(log, on_error="skip")] == [4999, 5000, 5000]


def test_negative_id_is_named_or_dropped(log: Path):
    with h5py.File(log, "r+") as file:
        row = int(np.flatnonzero(file["lengths"][:, 1])[9])
        file["ids"][int(file["ends"][row]) - 1] = -5
    with pytest.raises(DataError, match=rf"row {row}, column tags: expected ids in .*, got -5"):
        read(log)
    assert read(log, on_error="skip")[0].size == 4999


def test_files_of_different_columns_do_not_mix(log: Path, tmp_path: Path):
    other = Schema(dense=("price",), sparse=("user", "tags"), label="click", weighted=True)
    with Hdf5Writer(tmp_path / "more.h5", other, dense_transform="none") as writer:
        writer.finish()
    config = DataConfig(kind="hdf5", paths=(str(log),), eval_paths=(str(tmp_path / "more.h5"),))
    message = r"more\.h5: expected the columns and dense transform of the first file"
    with pytest.raises(DataError, match=message):
        read(tmp_path)
    with (
        open_reader(config, shard=0, shards=1, batch_size=9, split="eval") as reader,
        pytest.raises(DataError, match=message),
    ):
        reader.next_batch()


def test_transforms_mix_only_if_the_job_says_which(log: Path, tmp_path: Path):
    with Hdf5Writer(tmp_path / "more.h5", SCHEMA, dense_transform="log1p") as writer:
        writer.finish()
    with pytest.raises(DataError, match=r"more\.h5: expected the columns and dense transform"):
        read(tmp_path)
    assert len(read(tmp_path, dense_transform="log1p")) == 3


class TestConvert:
    @pytest.fixture
    def csv(self, tmp_path: Path) -> DataConfig:
        rows = "".join(f"{i % 2},{i - 3},{i}\n" for i in range(100))
        (tmp_path / "log.csv").write_text(f"click,price,user\n{rows}bad\n")
        return DataConfig(
            kind="csv",
            paths=(str(tmp_path / "log.csv"),),
            label="click",
            dense=("price",),
            sparse=("user",),
            dense_transform="log1p",
            on_error="skip",
        )

    def test_result(self, csv: DataConfig, tmp_path: Path):
        seen: list[int] = []
        result = convert(csv, tmp_path / "log.h5", report=seen.append)

        assert isinstance(result, Converted)
        assert (result.rows, result.ids, result.skipped) == (100, 100, 1)
        assert result.file_bytes == (tmp_path / "log.h5").stat().st_size
        assert seen[-1] == 100

    def test_transform_of_the_job_is_the_default_of_the_file(self, csv, tmp_path: Path):
        path = tmp_path / "log.h5"
        convert(csv, path)
        raw = np.arange(-3, 97, dtype=np.float32)

        np.testing.assert_array_equal(read(path)[0].dense[:, 0], np.log1p(np.maximum(raw, 0)))
        np.testing.assert_array_equal(read(path, dense_transform="none")[0].dense[:, 0], raw)

    def test_splits_can_be_converted_apart(self, csv, tmp_path: Path):
        csv = replace(csv, holdout=0.3)
        train = convert(csv, tmp_path / "train.h5")
        held_out = convert(csv, tmp_path / "eval.h5", split="eval")

        assert train.rows + held_out.rows == 100
        assert held_out.rows > 10

    def test_existing_file_is_kept(self, csv, tmp_path: Path):
        (tmp_path / "log.h5").write_text("precious")
        with pytest.raises(DataError, match=r"log\.h5 exists; remove it, or ask to overwrite it"):
            convert(csv, tmp_path / "log.h5")
        assert (tmp_path / "log.h5").read_text() == "precious"

        convert(csv, tmp_path / "log.h5", overwrite=True)
        assert read(tmp_path / "log.h5")[0].size == 100

    def test_place_that_cannot_be(self, csv, tmp_path: Path):
        with pytest.raises(DataError, match="there is no folder"):
            convert(csv, tmp_path / "none" / "log.h5")
        with pytest.raises(DataError, match=r"ends in \.h5, \.hdf5 or \.parquet"):
            convert(csv, tmp_path / "log.csv.gz")

    def test_malformed_input_leaves_nothing_behind(self, csv, tmp_path: Path):
        csv = replace(csv, on_error="raise")
        for name in ("log.h5", "log.parquet"):
            with pytest.raises(DataError, match="line 102"):
                convert(csv, tmp_path / name)

        assert [p.name for p in tmp_path.iterdir()] == ["log.csv"]

    def test_full_disk_is_named(self, csv, tmp_path: Path, monkeypatch):
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
        with pytest.raises(DataError, match=r"log\.h5: cannot be written: .*No space left on dev"):
            convert(csv, tmp_path / "log.h5")

        assert [p.name for p in tmp_path.iterdir()] == ["log.csv"]

    def test_weights_survive_parquet(self, log: Path, tmp_path: Path):
        convert(DataConfig(kind="hdf5", paths=(str(log),)), tmp_path / "log.parquet")
        config = DataConfig(
            kind="parquet",
            paths=(str(tmp_path / "log.parquet"),),
            label="click",
            dense=("price", "age"),
            sparse=("user", "tags"),
            weights={"user": "user_weights", "tags": "tags_weights"},
        )
        with open_reader(config, shard=0, shards=1, batch_size=5000) as reader:
            for seed, actual in enumerate(reader):
                assert_same(actual, batch(5000, seed))
