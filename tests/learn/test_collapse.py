"""The collapse monitor on logits whose spread and rank are known."""

import pytest
import torch

from pipeline.learn import collapse


def test_random_directions_have_full_spread_and_rank():
    logits = torch.randn(512, 32, generator=torch.Generator().manual_seed(0))
    assert collapse.spread(logits) == pytest.approx(1.0, abs=0.02)
    assert collapse.effective_rank(logits) > 30
    assert not collapse.monitor(logits, "cnn")["cnn_collapsed"]


def test_one_direction_for_all_images_is_flagged():
    logits = torch.randn(1, 32, generator=torch.Generator().manual_seed(0)).repeat(64, 1)
    assert collapse.spread(logits) == pytest.approx(0.0, abs=1e-9)
    assert collapse.effective_rank(logits) == pytest.approx(1.0, abs=1e-6)
    assert collapse.monitor(logits, "cnn")["cnn_collapsed"]


def test_a_single_line_of_directions_is_flagged_by_its_rank():
    sign = torch.tensor([1.0, -1.0]).repeat(32)[:, None]
    logits = sign * torch.randn(1, 32, generator=torch.Generator().manual_seed(0))
    assert collapse.spread(logits) > 0.5
    assert collapse.monitor(logits, "cnn")["cnn_collapsed"]


def test_logits_that_are_not_numbers_are_flagged():
    logits = torch.full((8, 4), float("nan"))
    assert not collapse.spread(logits) >= collapse.MIN_SPREAD
