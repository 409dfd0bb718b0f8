"""Generated logs: what they say about themselves is true, and readers get back what was drawn."""

import hashlib
import json
import math
import tracemalloc
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from fourfold.runtime.data import truth as truth_file
from fourfold.runtime.data.click_log import encode
from fourfold.runtime.data.config import DataConfig
from fourfold.runtime.data.generate import GenerateConfig, Log, generate
from fourfold.runtime.data.kaggle import CLOSED_ROWS, ROWS
from fourfold.runtime.data.reader import open_reader
from fourfold.runtime.data.reuse import LOOKUPS, RATES, popularity
from fourfold.runtime.data.scatter import scattered32
from fourfold.runtime.data.traffic import BLOCK
from fourfold.runtime.data.truth import find_truth
from fourfold.runtime.errors import ConfigError, DataError
from fourfold.runtime.metrics import Evaluation

SMALL = GenerateConfig(samples=20_000, eval_samples=5_000, seed=7)

# Published beside the traces of facebookresearch/dlrm_datasets: share of the distinct ids, and of
# all lookups, that go to ids looked up (0, 1], (1, 2], (2, 4], (4, 8], ..., 32768 and more times.
PUBLISHED_IDS = {
    "2021": (0.473, 0.152, 0.139, 0.112, 0.072, 0.032, 0.011, 0.005, 0.002, 0.001),
    "2022": (0.342, 0.144, 0.149, 0.138, 0.112, 0.068, 0.029, 0.010, 0.004, 0.002),
}
PUBLISHED_LOOKUPS = {
    "2021": (0.069, 0.044, 0.068, 0.101, 0.121, 0.104, 0.073, 0.058, 0.052, 0.050,
             0.049, 0.048, 0.048, 0.043, 0.031, 0.023, 0.019),
    "2022": (0.027, 0.023, 0.040, 0.068, 0.105, 0.120, 0.099, 0.070, 0.059, 0.054,
             0.040, 0.072, 0.064, 0.047, 0.021, 0.017, 0.076),
}  # fmt: skip


def ids_of(log: Log, field: int, start: int, stop: int) -> npt.NDArray[np.uint32]:
    return np.concatenate([seen.sparse[field].ids for seen, _, _ in log.read(start, stop)])


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# What the files hold


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


# Who sees what


def test_scale_one_has_the_published_tables() -> None:
    assert replace(SMALL, scale=1.0).rows == ROWS
    assert sum(ROWS) == 33_762_577
    half = replace(SMALL, scale=0.5).rows
    for rows, published in zip(half, ROWS, strict=True):
        kept = published <= CLOSED_ROWS
        assert rows == (published if kept else max(CLOSED_ROWS, round(published / 2)))


@pytest.mark.parametrize("trace", ["2021", "2022"])
def test_reuse_follows_the_production_traces(trace: str) -> None:
    """Look up ids as often as the trace did, and count how often each one comes."""
    rows = 2_000_000
    mean_rate = sum(LOOKUPS[trace]) / sum(m / r for m, r in zip(LOOKUPS[trace], RATES, strict=True))
    u = np.random.default_rng(0).random(round(rows * mean_rate))
    _, position = popularity(rows, trace).place(u)
    counts = np.bincount(position.astype(np.int64), minlength=rows)
    counts = counts[counts > 0]
    upper = [1.0, *(2.0**k for k in range(1, 16)), math.inf]
    bins = np.searchsorted(upper, counts)
    ids = np.bincount(bins, minlength=17) / len(counts)
    lookups = np.bincount(bins, weights=counts, minlength=17) / counts.sum()
    np.testing.assert_allclose(ids[:10], PUBLISHED_IDS[trace], atol=0.003)
    np.testing.assert_allclose(lookups, PUBLISHED_LOOKUPS[trace], atol=0.006)


@pytest.mark.parametrize("rows", [1, 2, 3, 10, 24, 1000, 54_321])
def test_every_table_size_has_a_popularity(rows: int) -> None:
    law = popularity(rows)
    assert law.slots.sum() == rows
    assert law.share.sum() == pytest.approx(1)
    assert (np.diff(law.per_slot) < 0).all()
    _, position = law.place(np.linspace(0, 1, 1000, endpoint=False))
    assert position.min() == 0
    assert position.max() < rows
    assert law.place(np.array([np.nextafter(1, 0)]))[1][0] < rows


@pytest.mark.parametrize("cooccurrence", [0.0, 0.9])
def test_cooccurrence_leaves_popularity_as_it_is(cooccurrence: float) -> None:
    """Field 16 has ten values: compare their shares with the law's."""
    config = replace(SMALL, samples=200_000, cooccurrence=cooccurrence)
    law = popularity(ROWS[16])
    expected = np.repeat(law.per_slot, law.slots)
    ids = ids_of(Log(config), 16, 0, 200_000)
    shares = np.sort(np.unique(ids, return_counts=True)[1])[::-1] / len(ids)
    np.testing.assert_allclose(shares, expected, atol=0.005)


def test_fields_of_one_side_occur_together() -> None:
    def pairs(cooccurrence: float, one: int, other: int) -> int:
        log = Log(replace(SMALL, cooccurrence=cooccurrence))
        left, right = ids_of(log, one, 0, 20_000), ids_of(log, other, 0, 20_000)
        return len(np.unique(np.stack([left, right]), axis=1).T)

    assert pairs(0.9, 6, 12) < 0.6 * pairs(0.0, 6, 12)  # both of the user
    assert pairs(0.9, 6, 9) > 0.95 * pairs(0.0, 6, 9)  # one of each


def test_ids_appear_and_fade_over_time() -> None:
    def unseen_before(drift: float, field: int) -> float:
        config = replace(SMALL, samples=95_000, drift=drift, scale=0.0003)
        log = Log(config)
        early = ids_of(log, field, 0, 80_000)
        late = ids_of(log, field, 90_000, 100_000)
        return float((~np.isin(late, early)).mean())

    largest = int(np.argmax(ROWS))
    assert unseen_before(0.0, largest) < 0.02
    assert unseen_before(0.8, largest) > 0.05
    assert unseen_before(0.8, 1) < 0.005  # a closed list


def test_an_id_fades_in_while_the_one_before_it_fades_out() -> None:
    log = Log(replace(SMALL, samples=195_000, drift=1.0, cooccurrence=0.0))
    field = int(np.argmax(ROWS))
    index = np.concatenate([s.sparse[field].index for s, _, _ in log.read(0, 200_000)])
    _, slots, _ = log.traffic.slots(field)
    top = np.flatnonzero(index % slots == 1)
    generations = index[top] // slots
    change = [np.flatnonzero(generations == g) for g in np.unique(generations)]
    assert len(change) >= 2
    overlap = change[0].max() - change[1].min()
    assert 0.1 < overlap / len(top) < 0.3


def test_ids_are_scattered_and_distinct_within_a_field() -> None:
    spread = np.unique(np.random.default_rng(0).integers(0, 2**31, 2**20, dtype=np.uint32))
    for key, index in ((0, spread), (1, spread), (2**63, np.arange(2**20, dtype=np.uint32))):
        ids = scattered32(index, key)
        assert len(np.unique(ids)) == len(ids)
        assert 0 not in ids
        assert abs(float(ids.mean()) / 2**31 - 1) < 0.01
    ends = np.array([0, 2**31 - 1], np.uint32)
    assert 0 not in scattered32(ends, 5)


def test_multi_hot_bags_have_the_length_that_was_asked_for() -> None:
    hot = tuple(range(1, 27))
    log = Log(replace(SMALL, hot=hot))
    seen, _, _ = next(log.read(0, BLOCK))
    for bags, mean in zip(seen.sparse, hot, strict=True):
        filled = bags.lengths[bags.lengths > 0]
        assert filled.mean() == pytest.approx(mean, rel=0.02)
        assert filled.max() <= 2 * mean - 1
        assert bags.lengths.sum() == len(bags.ids) == len(bags.rate)


# Who clicks


def test_best_figures_are_those_of_the_true_probabilities(tmp_path: Path) -> None:
    """Against the definition, pair by pair, and against the metrics of what was drawn."""
    made = generate(replace(SMALL, samples=3000, eval_samples=2000), tmp_path / "log")
    log = Log(replace(SMALL, samples=3000, eval_samples=2000))
    logits, clicked = (
        np.concatenate(parts)
        for parts in zip(*((x, y) for _, x, y in log.read(3000, 5000)), strict=True)
    )
    p = 1 / (1 + np.exp(-logits))
    mass = p[:, None] * (1 - p)[None, :]
    np.fill_diagonal(mass, 0)
    wins = mass * ((p[:, None] > p[None, :]) + 0.5 * (p[:, None] == p[None, :]))
    best = made.eval
    assert best.auc == pytest.approx(wins.sum() / mass.sum(), abs=1e-6)
    assert best.log_loss == pytest.approx(np.mean(-p * np.log(p) - (1 - p) * np.log(1 - p)))
    assert best.click_rate == pytest.approx(p.mean())
    evaluation = Evaluation()
    evaluation.add(logits.astype(np.float32), clicked)
    drawn = evaluation.result()
    assert best.drawn_auc == pytest.approx(drawn.auc, abs=1e-5)
    assert best.drawn_log_loss == pytest.approx(drawn.log_loss, rel=1e-6)
    assert (best.samples, best.clicks) == (2000, drawn.positives)


def test_labels_are_drawn_with_the_true_probabilities() -> None:
    log = Log(replace(SMALL, samples=200_000))
    parts = list(log.read(0, 200_000))
    p = 1 / (1 + np.exp(-np.concatenate([x for _, x, _ in parts])))
    clicked = np.concatenate([y for _, _, y in parts])
    order = np.argsort(p)
    for some in np.array_split(order, 10):
        spread = math.sqrt((p[some] * (1 - p[some])).sum())
        assert abs(clicked[some].sum() - p[some].sum()) < 4 * spread


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_click_rate_strength_and_shares_are_as_asked(seed: int) -> None:
    config = replace(SMALL, samples=100_000, seed=seed, strength=1.0, pairs=0.2, integers=0.3)
    log = Log(config)
    seen = [s for s, _, _ in log.read(0, 100_000)]
    logits = np.concatenate([log.model.logits(s) for s in seen])
    assert np.mean(1 / (1 + np.exp(-logits))) == pytest.approx(config.click_rate, abs=0.004)
    assert logits.std() == pytest.approx(1.0, rel=0.03)
    parts = np.concatenate([log.model.parts(s) for s in seen]) * log.model.coefficients
    share = parts.var(axis=0) / parts.var(axis=0).sum()
    np.testing.assert_allclose(share, (0.5, 0.2, 0.3), atol=0.02)


def test_an_id_always_has_the_same_effect_and_other_ids_others() -> None:
    """Two impressions with the same features have the same chance of a click."""
    log = Log(SMALL)
    seen, logits, _ = next(log.read(0, BLOCK))
    np.testing.assert_array_equal(log.model.logits(seen.rows(100, 200)), logits[100:200])
    other = replace(log.model, seed=SMALL.seed + 1)
    assert np.abs(other.parts(seen) - log.model.parts(seen)).mean() > 0.1


def test_rare_ids_have_weaker_effects_unless_asked() -> None:
    def spread(sightings: float) -> float:
        log = Log(replace(SMALL, samples=100_000, sightings=sightings))
        seen = log.traffic.block(0)
        bags = seen.sparse[int(np.argmax(ROWS))]
        rare = bags.rate < np.quantile(bags.rate, 0.3)
        owner = np.repeat(np.arange(seen.size), bags.lengths)[rare]
        lone = tuple(replace(b, lengths=b.lengths * 0, ids=b.ids[:0], index=b.index[:0],
                             rate=b.rate[:0]) for b in seen.sparse)  # fmt: skip
        only = [bags if b is bags else empty for b, empty in zip(seen.sparse, lone, strict=True)]
        linear = log.model.parts(replace(seen, sparse=tuple(only)))[:, 0]
        return float(linear[owner].std())

    assert spread(2000) < 0.2
    assert spread(0) == pytest.approx(1, abs=0.15)


# truth.json


@pytest.fixture
def job(tmp_path: Path) -> tuple[DataConfig, Path]:
    folder = tmp_path / "log"
    generate(replace(SMALL, samples=2000, eval_samples=1000), folder)
    return DataConfig(paths=(f"{folder}/train*",), eval_paths=(f"{folder}/eval*",)), folder


def test_truth_is_found_beside_the_evaluation_files(job: tuple[DataConfig, Path]) -> None:
    config, folder = job
    truth = find_truth(config)
    saved = json.loads((folder / truth_file.FILE).read_text())
    assert truth is not None
    assert asdict(truth).items() <= saved["splits"]["eval"].items()
    assert truth.samples == 1000
    assert saved["settings"]["seed"] == SMALL.seed


def test_nobody_knows_the_truth_of_other_files(job: tuple[DataConfig, Path]) -> None:
    config, folder = job
    assert find_truth(DataConfig(paths=config.paths)) is None
    assert find_truth(replace(config, eval_paths=config.paths)) is None
    assert find_truth(replace(config, eval_paths=config.paths + config.eval_paths)) is None
    (folder / truth_file.FILE).unlink()
    assert find_truth(config) is None


@pytest.mark.parametrize("content", ["", "[]", "{", '{"format": "fourfold truth 1"}'])
def test_a_damaged_truth_is_named(job: tuple[DataConfig, Path], content: str) -> None:
    config, folder = job
    (folder / truth_file.FILE).write_text(content)
    with pytest.raises(DataError, match=r"truth\.json: not as `fourfold generate` writes it"):
        find_truth(config)


# Folders and settings


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
