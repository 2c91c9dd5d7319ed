"""Student's t and Holm's correction, against scipy and arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from pipeline.results.statistics import estimate, holm


def test_a_mean_its_interval_and_its_test_are_scipys():
    values = [0.1, 0.2, 0.4, 0.5]
    found = estimate(values)
    assert found.mean == pytest.approx(0.3)
    assert found.interval == pytest.approx(stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values)))
    assert found.p == pytest.approx(stats.ttest_1samp(values, 0).pvalue)
    assert (found.interval[0] > 0) == (found.p < 0.05)


def test_fewer_than_three_values_and_values_that_agree_but_for_rounding_are_not_tested():
    assert estimate([0.1, 0.2]) is None
    assert estimate([0.25] * 5) is None
    rounded = [0.1 + 0.2 - 0.2, 0.6 - 0.5, 0.7 - 0.6]  # 0.1, but for rounding
    assert np.std(rounded) > 0 and estimate(rounded) is None


def test_a_difference_as_large_as_the_detectable_one_is_found_four_times_in_five():
    rng = np.random.default_rng(0)
    error = 1 / np.sqrt(5)
    shows = estimate([-1.0, 1.0, 0.0, 1.0, -1.0])  # a deviation of 1 over 5 values
    assert shows.error == pytest.approx(error)
    found = [estimate(rng.normal(shows.detectable, 1, 5).tolist()).interval[0] > 0 for _ in range(2000)]
    assert np.mean(found) == pytest.approx(0.8, abs=0.03)


def test_holms_correction_by_hand():
    # sorted 0.01, 0.02, 0.03, 0.04: times 4, 3, 2, 1, never falling
    assert holm([0.04, None, 0.01, 0.03, 0.02]) == pytest.approx([0.06, None, 0.04, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
