"""Metrics against their definitions, on one rank and merged over many."""

import math
from dataclasses import astuple
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.stats import rankdata

from fourfold.runtime.errors import DataError
from fourfold.runtime.metrics import Evaluation, Metrics, entropy

if TYPE_CHECKING:
    from mpi4py import MPI

Logits = npt.NDArray[np.float32]
Labels = npt.NDArray[np.bool_]

# Few distinct values, so that scores tie; the largest and smallest floats; certainty.
SCORES = st.one_of(
    st.sampled_from([0.0, -0.0, 1.0, -1.0, math.inf, -math.inf, 3.4e38, -3.4e38, 1e-45]),
    st.floats(width=32, allow_nan=False),
)
SAMPLES = st.lists(st.tuples(SCORES, st.booleans()), max_size=40)


def split(samples: list[tuple[float, bool]]) -> tuple[Logits, Labels]:
    return (
        np.array([score for score, _ in samples], np.float32),
        np.array([label for _, label in samples], np.bool_),
    )


def pairs_won(logits: Logits, labels: Labels) -> float:
    """AUC by its definition: every positive against every negative."""
    above = logits[labels][:, None] > logits[~labels][None, :]
    equal = logits[labels][:, None] == logits[~labels][None, :]
    return float((above + 0.5 * equal).mean()) if above.size else math.nan


def rank_auc(logits: Logits, labels: Labels) -> float:
    """AUC from average ranks (Mann and Whitney)."""
    positives = int(labels.sum())
    ranks = rankdata(logits.astype(np.float64))[labels].sum()
    return float(
        (ranks - positives * (positives + 1) / 2) / (positives * (len(labels) - positives))
    )


def evaluate(logits: Logits, labels: Labels, batch: int = 7) -> Metrics:
    evaluation = Evaluation()
    for start in range(0, len(logits), batch):
        evaluation.add(logits[start : start + batch], labels[start : start + batch])
    return evaluation.result()


@given(samples=SAMPLES)
@example(samples=[(0.0, True), (-0.0, False)])
@example(samples=[(math.inf, True), (math.inf, False)])
def test_auc_is_exact(samples: list[tuple[float, bool]]) -> None:
    logits, labels = split(samples)
    expected = pairs_won(logits, labels)
    assert evaluate(logits, labels).auc == pytest.approx(expected, abs=1e-12, nan_ok=True)


@pytest.mark.parametrize("digits", [0, 1, 3, 8])
def test_auc_of_many_samples_with_and_without_ties(digits: int) -> None:
    rng = np.random.default_rng(digits)
    labels = rng.random(100_000) < 0.2
    logits = (rng.normal(size=100_000) + labels).round(digits).astype(np.float32)
    assert evaluate(logits, labels, 4096).auc == pytest.approx(rank_auc(logits, labels), abs=1e-12)


def test_predictions_that_hardly_differ_are_told_apart() -> None:
    one = np.float32(1)
    logits = np.array([one, np.nextafter(one, np.float32(2))] * 500, np.float32)
    labels = np.array([False, True] * 500)
    assert evaluate(logits, labels).auc == 1.0


def test_log_loss_entropy_and_calibration_follow_their_definitions() -> None:
    rng = np.random.default_rng(3)
    logits = rng.normal(-1, 2, 1000).astype(np.float32)
    labels = rng.random(1000) < 0.3
    p = 1 / (1 + np.exp(-logits.astype(np.float64)))
    expected = -np.mean(np.where(labels, np.log(p), np.log(1 - p)))
    rate = labels.mean()
    base = -(rate * math.log(rate) + (1 - rate) * math.log(1 - rate))
    metrics = evaluate(logits, labels)
    assert metrics.log_loss == pytest.approx(expected, rel=1e-12)
    assert metrics.normalized_entropy == pytest.approx(expected / base, rel=1e-12)
    assert metrics.calibration == pytest.approx(p.mean() / rate, rel=1e-12)
    assert (metrics.samples, metrics.positives) == (1000, labels.sum())
    assert metrics.undefined == ""


def test_predicting_the_mean_has_normalized_entropy_and_calibration_one() -> None:
    labels = np.arange(1000) % 4 == 0
    metrics = evaluate(np.full(1000, math.log(1 / 3), np.float32), labels)
    assert metrics.normalized_entropy == pytest.approx(1, abs=1e-7)
    assert metrics.calibration == pytest.approx(1, abs=1e-7)
    assert metrics.auc == 0.5


@given(samples=SAMPLES)
def test_probabilities_are_scored_as_log_odds_are(samples: list[tuple[float, bool]]) -> None:
    logits, labels = split(samples)
    p = np.exp(-np.logaddexp(0, -logits.astype(np.float64)))
    evaluation = Evaluation()
    evaluation.add_probabilities(p, labels)
    if len(p):
        with np.errstate(divide="ignore"):
            expected = -np.mean(np.where(labels, np.log(p), np.log1p(-p)))
        assert evaluation.result().log_loss == pytest.approx(expected, rel=1e-5)


def test_certainty_costs_nothing_when_right_and_everything_when_wrong() -> None:
    certain = np.array([math.inf, -math.inf], np.float32)
    assert evaluate(certain, np.array([True, False])).log_loss == 0
    assert evaluate(certain, np.array([False, True])).log_loss == math.inf


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        ([], "there were no samples"),
        ([False, False], "no sample was positive"),
        ([True, True], "no sample was negative"),
    ],
)
def test_what_does_not_exist_is_nan_with_a_reason(labels: list[bool], reason: str) -> None:
    metrics = evaluate(np.zeros(len(labels), np.float32), np.array(labels, np.bool_))
    assert metrics.undefined == reason
    assert math.isnan(metrics.auc)
    assert math.isnan(metrics.normalized_entropy)
    assert math.isnan(metrics.log_loss) == (not labels)


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        ([0.0, math.nan, math.nan], [0, 1, 1], "2 of 3 predictions are NaN"),
        ([0.0, 1.0], [0, 2], "1 of 2 labels are neither 0 nor 1"),
        ([0.0], [math.nan], "1 of 1 labels are neither 0 nor 1"),
        ([0.0, 1.0], [0], "expected one of each"),
        ([[0.0]], [[1]], "expected one of each"),
    ],
)
def test_bad_input_is_named(logits: list[float], labels: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Evaluation().add(np.array(logits, np.float32), np.array(labels))


@pytest.mark.parametrize("p", [-0.1, 1.5])
def test_what_is_no_probability_is_named(p: float) -> None:
    with pytest.raises(DataError, match="1 of 1 predictions are not probabilities"):
        Evaluation().add_probabilities([p], [1])


def test_a_finished_evaluation_takes_no_more() -> None:
    evaluation = Evaluation()
    evaluation.result()
    with pytest.raises(ValueError, match="has been merged"):
        evaluation.add([0.0], [1])


def test_what_is_added_may_be_overwritten_afterwards() -> None:
    logits, labels = np.array([1.0, 2.0], np.float32), np.array([0.0, 1.0], np.float32)
    evaluation = Evaluation()
    evaluation.add(logits, labels)
    logits[:], labels[:] = logits[::-1].copy(), 0
    assert evaluation.result().auc == 1.0


def test_entropy() -> None:
    assert entropy(0.5) == pytest.approx(math.log(2))
    assert entropy(0) == entropy(1) == 0


@pytest.mark.mpi
@given(data=st.data(), samples=SAMPLES)
def test_ranks_together_are_one_rank_with_everything(
    comm: "MPI.Intracomm", data: st.DataObject, samples: list[tuple[float, bool]]
) -> None:
    """Any sample may be on any rank, some ranks may have none, ties lie across ranks."""
    logits, labels = split(samples)
    owners = st.lists(st.integers(0, comm.size - 1), min_size=len(logits), max_size=len(logits))
    mine = np.array(data.draw(owners), np.int64) == comm.rank
    evaluation = Evaluation()
    evaluation.add(logits[mine], labels[mine])
    evaluation.merge(comm)
    merged, alone = evaluation.result(), evaluate(logits, labels)
    assert repr(merged.auc) == repr(alone.auc)
    assert (merged.samples, merged.positives) == (alone.samples, alone.positives)
    assert astuple(merged)[1:4] == pytest.approx(astuple(alone)[1:4], rel=1e-12, nan_ok=True)
    assert comm.allgather(repr(merged)) == [repr(merged)] * comm.size


@pytest.mark.mpi
@pytest.mark.parametrize("digits", [0, 2, 8])
def test_merged_auc_is_exact_for_many_samples(comm: "MPI.Intracomm", digits: int) -> None:
    """Ranks hold different parts of the range, so almost every score changes its rank."""
    rng = np.random.default_rng(digits)
    labels = rng.random(50_000) < 0.2
    logits = np.sort((rng.normal(size=50_000) + labels).round(digits)).astype(np.float32)
    mine = np.arange(50_000) * comm.size // 50_000 == comm.size - 1 - comm.rank
    evaluation = Evaluation()
    evaluation.add(logits[mine], labels[mine])
    evaluation.merge(comm)
    assert evaluation.result().auc == pytest.approx(rank_auc(logits, labels), abs=1e-12)
    assert evaluation.result().auc == evaluate(logits, labels, 50_000).auc
