"""Temperature and calibration error, against arithmetic, scipy and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import optimize, special
from sklearn.metrics import log_loss

from pipeline.learn import calibration


def logits_and_targets(task: str, *, n: int = 4000, times: float = 1.0):
    """Logits whose probabilities are true, times a factor: the temperature of many of them is that factor."""
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 2, (n, 4))
    if task == "multi-class":
        chosen = [rng.choice(4, p=row) for row in special.softmax(logits, axis=1)]
        return logits * times, np.eye(4)[chosen]
    return logits * times, (rng.random((n, 4)) < special.expit(logits)).astype(float)


@pytest.mark.parametrize("task", ["multi-class", "multi-label"])
@pytest.mark.parametrize("times", [0.5, 1.0, 3.0])
def test_the_temperature_is_what_scipy_finds_and_undoes_a_factor(task: str, times: float) -> None:
    logits, targets = logits_and_targets(task, times=times)

    def loss(temperature: np.ndarray) -> float:
        if task == "multi-class":
            return log_loss(targets, special.softmax(logits / temperature[0], axis=1))
        true = np.where(targets == 1, logits, -logits) / temperature[0]
        return -special.log_expit(true).mean()

    found = calibration.fit(logits, targets, task)
    wanted = optimize.minimize(loss, [1.0], method="Nelder-Mead", options={"xatol": 1e-7, "fatol": 1e-12}).x[0]
    assert found == pytest.approx(wanted, rel=1e-4)
    assert found == pytest.approx(times, rel=0.05)
    assert calibration.negative_log_likelihood(logits, targets, task) == pytest.approx(loss(np.ones(1)))


@pytest.mark.parametrize("task", ["multi-class", "multi-label"])
def test_a_temperature_stays_within_its_limits_where_nothing_is_wrong_or_all_is(task: str) -> None:
    targets = np.eye(3)
    low, high = calibration.LIMITS
    assert calibration.fit(0.4 * targets - 0.2, targets, task) == pytest.approx(low, rel=1e-3)
    assert calibration.fit(0.2 - 0.4 * targets, targets, task) == pytest.approx(high, rel=1e-3)
    assert "at its limit" in calibration.undetermined(calibration.fit(0.4 * targets - 0.2, targets, task))
    assert calibration.undetermined(1.5) == ""


def test_probabilities_are_scipys_and_keep_the_highest_class() -> None:
    logits = np.array([[2.0, -1.0, 0.5], [800.0, -800.0, 0.0]], dtype=np.float32)
    single = calibration.probabilities(logits, 2.0, "multi-class")
    assert single == pytest.approx(special.softmax(logits.astype(float) / 2, axis=1))
    assert single.sum(axis=1) == pytest.approx([1, 1])
    several = calibration.probabilities(logits, 2.0, "multi-label")
    assert several == pytest.approx(special.expit(logits.astype(float) / 2))
    assert (several.argmax(axis=1) == logits.argmax(axis=1)).all()


def test_stored_scores_give_back_their_logits_and_certain_ones_stay_finite() -> None:
    logits = np.array([-12.0, -0.3, 0.0, 4.0])
    assert calibration.logits_of(special.expit(logits).astype(np.float32)) == pytest.approx(logits, abs=0.01)
    assert np.abs(calibration.logits_of(np.array([0.0, 1.0], dtype=np.float32))) == pytest.approx([16.64] * 2, abs=0.01)


def test_the_error_by_hand() -> None:
    # bins of 1/15: 0.95 and 0.99 share the last one (sum 1.94, one right); 0.5 is alone (right): (0.94 + 0.5) / 3
    scores = np.array([[0.95, 0.1], [0.01, 0.99], [0.5, 0.4]])
    targets = np.array([[1, 0], [1, 0], [1, 0]])
    found = calibration.reliability(scores, targets, "multi-class")
    assert found.ece == pytest.approx((abs(0.95 + 0.99 - 1) + abs(0.5 - 1)) / 3)
    assert found.count.tolist() == [0] * 7 + [1] + [0] * 6 + [2]
    # every class of every image: 0.01 (true), 0.1, 0.4, 0.5 (true), then 0.95 (true) with 0.99
    several = calibration.reliability(scores, targets, "multi-label")
    assert several.ece == pytest.approx((0.99 + 0.1 + 0.4 + 0.5 + abs(1.94 - 1)) / 6)
    assert (found + found).ece == pytest.approx(found.ece) and calibration.BINS == 15


@pytest.mark.parametrize("task", ["multi-class", "multi-label"])
def test_the_error_of_many_scores_is_that_of_a_loop_over_bins_and_falls_with_the_temperature(task: str) -> None:
    logits, targets = logits_and_targets(task, times=3.0)
    before = calibration.probabilities(logits, 1.0, task)
    after = calibration.probabilities(logits, calibration.fit(logits, targets, task), task)
    errors = []
    for scores in (before, after):
        best = scores.argmax(axis=1)
        single = task == "multi-class"
        p = scores.max(axis=1) if single else scores.ravel()
        right = targets[np.arange(len(best)), best] if single else targets.ravel()
        wanted = 0.0
        for low in range(15):
            inside = (p >= low / 15) & (p < (low + 1) / 15)
            if inside.any():
                wanted += inside.mean() * abs(p[inside].mean() - right[inside].mean())
        errors.append(calibration.reliability(scores, targets, task).ece)
        assert errors[-1] == pytest.approx(wanted)
    assert errors[1] < 0.02 < errors[0]
