"""Generated logs: readers get back what was drawn; folders and settings."""

import hashlib
import math
import tracemalloc
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from fourfold.runtime.data.click_log import encode
from fourfold.runtime.data.config import DataConfig
from fourfold.runtime.data.generate import GenerateConfig, Log, generate
from fourfold.runtime.data.reader import open_reader
from fourfold.runtime.data.traffic import BLOCK
from fourfold.runtime.errors import ConfigError

SMALL = GenerateConfig(samples=20_000, eval_samples=5_000, seed=7)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_lines_have_criteos_layout(tmp_path: Path) -> None:
    made = generate(SMALL, tmp_path / "log")
    lines = (tmp_path / "log" / made.train_files[0]).read_text().splitlines()
    assert len(lines) == SMALL.samples
    fields = np.array([line.split("\t") for line in lines])
    assert fields.shape == (SMALL.samples, 40)
    assert set(fields[:, 0]) == {"0", "1"}
    integers = {text for text in fields[:, 1:14].ravel() if text}
    assert all(str(int(text)) == text for text in integers)
    assert min(int(text) for text in integers) < 0
    ids = [text for text in fields[:, 14:].ravel() if text]
    assert all(len(text) == 8 and set(text) <= set("0123456789abcdef") for text in ids)
    assert (fields[:, 1:] == "").any(axis=0).sum() > 10


@pytest.mark.parametrize("hot", [1, 4])
@pytest.mark.parametrize("form", ["criteo", "gzip", "parquet"])
def test_readers_get_back_what_was_drawn(tmp_path: Path, form: str, hot: int) -> None:
    config = replace(
        SMALL,
        files=3,
        hot=(hot,),
        format="parquet" if form == "parquet" else "criteo",
        gzip=form == "gzip",
    )
    generate(config, tmp_path / "log")
    columns = {} if form != "parquet" else {
        "kind": "parquet",
        "dense": tuple(f"I{i}" for i in range(1, 14)),
        "sparse": tuple(f"C{i}" for i in range(1, 27)),
    }  # fmt: skip
    data = DataConfig(
        paths=(str(tmp_path / "log" / "train*"),),
        eval_paths=(str(tmp_path / "log" / "eval*"),),
        dense_transform="none",
        **columns,
    )
    log = Log(config)
    spans = {"train": (0, config.samples), "eval": (config.samples, config.samples + 5_000)}
    for split, (start, stop) in spans.items():
        with open_reader(data, shard=0, shards=1, batch_size=20_000, split=split) as reader:
            (batch,) = reader
        parts = list(log.read(start, stop))
        n = stop - start
        assert batch.size == n
        np.testing.assert_array_equal(batch.label, np.concatenate([y for _, _, y in parts]))
        np.testing.assert_array_equal(batch.dense, np.concatenate([s.dense for s, _, _ in parts]))
        for field in range(26):
            bags = [s.sparse[field] for s, _, _ in parts]
            lengths = np.concatenate([bag.lengths for bag in bags])
            offsets = batch.offsets[field * n : (field + 1) * n + 1]
            np.testing.assert_array_equal(np.diff(offsets), np.maximum(lengths, 1))
            ids = batch.ids[offsets[0] : offsets[-1]]  # 0 where the log has nothing
            drawn = np.concatenate([bag.ids for bag in bags])
            np.testing.assert_array_equal(ids[ids > 0], drawn)
            np.testing.assert_array_equal(ids[offsets[:-1] - offsets[0]] > 0, lengths > 0)


def test_the_same_settings_give_the_same_bytes_in_any_number_of_files(tmp_path: Path) -> None:
    one = generate(SMALL, tmp_path / "one")
    for name, files in (("again", 1), ("three", 3)):
        generate(replace(SMALL, files=files), tmp_path / name)
    whole = (tmp_path / "one" / one.train_files[0]).read_bytes()
    for name in ("again", "three"):
        parts = sorted((tmp_path / name).glob("train*"))
        assert b"".join(part.read_bytes() for part in parts) == whole
        assert digest(tmp_path / name / "eval.tsv") == digest(tmp_path / "one" / "eval.tsv")
    generate(replace(SMALL, seed=8), tmp_path / "other")
    assert (tmp_path / "other" / "train-0.tsv").read_bytes() != whole


def test_gzip_files_have_the_same_bytes_each_time(tmp_path: Path) -> None:
    config = replace(SMALL, samples=1000, eval_samples=0, gzip=True)
    for name in ("a", "b"):
        generate(config, tmp_path / name)
    assert digest(tmp_path / "a" / "train-0.tsv.gz") == digest(tmp_path / "b" / "train-0.tsv.gz")


def test_any_stretch_of_a_log_can_be_read_alone() -> None:
    log = Log(SMALL)
    whole = b"".join(encode(seen, clicked) for seen, _, clicked in log.read(0, 20_000))
    cuts = [0, 1, 5_000, BLOCK - 1, BLOCK, BLOCK + 1, 20_000]
    parts = [
        encode(seen, clicked)
        for start, stop in pairwise(cuts)
        for seen, _, clicked in log.read(start, stop)
    ]
    assert b"".join(parts) == whole


def test_memory_does_not_grow_with_the_log(tmp_path: Path) -> None:
    peaks = []
    for samples in (50_000, 200_000):
        tracemalloc.start()
        generate(replace(SMALL, samples=samples, scale=0.01), tmp_path / str(samples))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0]


def test_a_folder_appears_only_when_it_is_complete(tmp_path: Path) -> None:
    def stop(samples: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate(SMALL, tmp_path / "log", report=stop)
    assert list(tmp_path.iterdir()) == []


def test_only_generated_logs_are_replaced_and_only_when_asked(tmp_path: Path) -> None:
    config = replace(SMALL, samples=1000, eval_samples=100)
    (tmp_path / "empty").mkdir()
    generate(config, tmp_path / "empty")
    with pytest.raises(ConfigError, match="holds generated logs already"):
        generate(config, tmp_path / "empty")
    generate(replace(config, eval_samples=0), tmp_path / "empty", overwrite=True)
    assert not (tmp_path / "empty" / "eval.tsv").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("")
    (tmp_path / "file").write_text("")
    for name, message in (("mine", "holds other files"), ("file", "is a file")):
        with pytest.raises(ConfigError, match=message):
            generate(config, tmp_path / name, overwrite=True)
    assert (tmp_path / "mine" / "thesis.tex").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"samples": 0}, "samples: expected at least 1, got 0"),
        ({"eval_samples": -1}, "eval-samples: expected at least 0"),
        ({"files": 0}, "files: expected"),
        ({"files": 20_001}, "files: expected"),
        ({"format": "csv"}, "format: expected criteo or parquet, got csv"),
        ({"format": "parquet", "gzip": True}, "gzip: expected only for criteo"),
        ({"seed": -1}, "seed: expected"),
        ({"scale": 0.0}, "scale: expected above 0"),
        ({"scale": math.nan}, "scale: expected above 0"),
        ({"scale": 1e9}, "scale: expected tables below 2\\^31 ids"),
        ({"hot": (1, 2)}, "hot: expected 1 or 26 numbers"),
        ({"hot": (0,)}, "hot: expected"),
        ({"trace": "2020"}, "trace: expected one of 2021, 2022, got 2020"),
        ({"drift": -0.1}, "drift: expected"),
        ({"cooccurrence": 1.1}, "cooccurrence: expected"),
        ({"click_rate": 1.0}, "click-rate: expected"),
        ({"strength": 0.0}, "strength: expected"),
        ({"pairs": 0.8, "integers": 0.3}, "pairs, integers: expected"),
        ({"pairs": math.nan}, "pairs, integers: expected"),
        ({"sightings": -1.0}, "sightings: expected"),
    ],
)
def test_settings_that_cannot_be_are_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(SMALL, **change)


@pytest.mark.parametrize("change", [{"drift": 0.0}, {"drift": 20.0}, {"pairs": 0.0},
                                    {"pairs": 0.4, "integers": 0.6}, {"cooccurrence": 1.0},
                                    {"samples": 1, "eval_samples": 0}, {"scale": 3.0},
                                    {"click_rate": 0.001}])  # fmt: skip
def test_extreme_settings_work(tmp_path: Path, change: dict[str, object]) -> None:
    config = replace(SMALL, samples=500, eval_samples=100)
    made = generate(replace(config, **change), tmp_path / "log")
    assert made.train.samples == replace(config, **change).samples
