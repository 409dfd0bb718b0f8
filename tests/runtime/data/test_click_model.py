"""Who clicks in generated logs: labels follow the true probabilities, and these the settings."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fourfold.runtime.data.generate import GenerateConfig, Log, generate
from fourfold.runtime.data.kaggle import ROWS
from fourfold.runtime.data.traffic import BLOCK
from fourfold.runtime.metrics import Evaluation

SMALL = GenerateConfig(samples=20_000, eval_samples=5_000, seed=7)


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
