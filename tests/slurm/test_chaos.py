"""Some minutes of what `make chaos` does for twenty: ten events for each way of preemption."""

from __future__ import annotations

import chaos
import pytest


@pytest.mark.slow
@pytest.mark.usefixtures("devcluster")
def test_a_grid_under_every_disturbance_ends_once_with_the_same_bits(tmp_path):
    assert chaos.main(tmp_path, events=30, seed=1, epochs=40) == []
