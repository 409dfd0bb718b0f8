"""Logs in which ids come and go: determinism, churn, and the best that can be reached."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from fourfold.jobs.study import log as study_log
from fourfold.jobs.study.clicks import CLICK_RATE, CLOSED, EFFECTS, Clicks, generate_clicks
from fourfold.jobs.study.log import gap_quantile, make_log, open_log
from fourfold.runtime.metrics import Evaluation

SAMPLES = 60_000
OPEN = [name for name in EFFECTS if name not in CLOSED]


@pytest.fixture(scope="module")
def clicks() -> Clicks:
    return generate_clicks(SAMPLES, seed=3)


def field(clicks: Clicks, name: str) -> np.ndarray:
    return clicks.ids[list(EFFECTS).index(name)]


def test_the_same_seed_gives_the_same_bits(clicks: Clicks) -> None:
    again, other = generate_clicks(SAMPLES, seed=3), generate_clicks(SAMPLES, seed=4)

    for name in ("ids", "dense", "label", "logit"):
        assert np.array_equal(getattr(clicks, name), getattr(again, name))
        assert not np.array_equal(getattr(clicks, name), getattr(other, name))


@pytest.mark.parametrize("name", OPEN)
def test_new_ids_come_as_long_as_the_log_goes_on(clicks: Clicks, name: str) -> None:
    ids = field(clicks, name)
    first = np.unique(ids, return_index=True)[1]
    born = np.histogram(first, bins=4, range=(0, SAMPLES))[0]

    # The first quarter also meets those that were there before; after it births are steady.
    assert born[1:].max() < 1.35 * born[1:].min()
    assert born[-1] > 0.15 * len(first)


@pytest.mark.parametrize("name", ["user", "item", "page", "taste"])
def test_ids_fade(clicks: Clicks, name: str) -> None:
    early, late = np.array_split(field(clicks, name), 10)[::9]

    assert np.isin(late, early).mean() < 0.25


def test_most_ids_of_open_fields_appear_once(clicks: Clicks) -> None:
    counts = [np.unique(field(clicks, name), return_counts=True)[1] for name in OPEN]
    counts = np.concatenate(counts)

    assert 0.5 < (counts == 1).mean() < 0.8
    assert (counts >= 10).mean() < 0.1


def test_closed_fields_keep_to_their_lists(clicks: Clicks) -> None:
    for name, values in CLOSED.items():
        ids = field(clicks, name)
        assert 0 <= ids.min() <= ids.max() < values
        assert len(np.unique(ids)) > 0.5 * values


def test_an_item_keeps_its_author_and_an_author_its_category(clicks: Clicks) -> None:
    for whole, part in (("item", "author"), ("author", "category"), ("user", "city")):
        pairs = np.unique(np.stack([field(clicks, whole), field(clicks, part)]), axis=1)
        assert len(np.unique(pairs[0])) == pairs.shape[1]


def test_the_click_rate_is_as_asked(clicks: Clicks) -> None:
    assert abs(clicks.label.mean() - CLICK_RATE) < 0.01


def test_the_best_figures_come_from_the_true_probabilities(tmp_path: Path) -> None:
    log = make_log(tmp_path, 20_000, 0)
    truth = log.truth(scored=0.5)
    evaluation = Evaluation()
    evaluation.add(log.clicks.logit[10_000:], log.clicks.label[10_000:])

    assert truth.samples == 10_000
    assert math.isclose(truth.drawn_auc, evaluation.result().auc, abs_tol=1e-4)
    assert abs(truth.auc - truth.drawn_auc) < 0.02
    assert 0.7 < truth.auc < 0.85


def test_a_log_is_made_once_and_counted(tmp_path: Path) -> None:
    made = make_log(tmp_path, 5_000, 1)
    (folder,) = tmp_path.iterdir()
    times = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    opened = open_log(tmp_path, 5_000, 1)
    make_log(tmp_path, 5_000, 1)

    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == times
    assert opened.tables == made.tables
    assert opened.distinct == sum(len(np.unique(ids)) for ids in opened.clicks.ids)
    assert [use.lookups for use in opened.tables] == [5_000] * len(EFFECTS)
    assert opened.tables[list(EFFECTS).index("city")].closed == CLOSED["city"]


def test_a_log_that_another_study_made_meanwhile_is_as_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def generate(samples: int, seed: int) -> Clicks:
        monkeypatch.undo()
        make_log(tmp_path, samples, seed)
        return generate_clicks(samples, seed)

    monkeypatch.setattr(study_log, "generate_clicks", generate)
    log = make_log(tmp_path, 1_000, 0)

    assert log.clicks.size == 1_000
    assert len(list(tmp_path.iterdir())) == 1


def test_gaps_are_distances_between_neighbouring_lookups() -> None:
    ids = np.array([5, 7, 5, 9, 7, 5])  # 5: gaps 2 and 3; 7: gap 3

    assert gap_quantile(ids, 0.0) == 2
    assert gap_quantile(ids, 1.0) == 3
    assert gap_quantile(np.array([1, 2, 3])) == 0
