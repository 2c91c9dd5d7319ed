"""CASS with its guard: each term by hand in numpy, what each term wants, and that the arms do not collapse."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from PIL import Image
from torch import nn

from pipeline.data.datasets.toy import draw
from pipeline.learn import backbones, collapse
from pipeline.learn.augment import normalise, unit
from pipeline.learn.methods import METHODS, cass, cass_vc
from pipeline.learn.samples import draws
from pipeline.runs.spec import DatasetRef, PretrainSpec
from pipeline.study import paper, recipes

PIXELS = torch.randint(0, 256, (8, 16, 16, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
ALIKE = torch.randn(1, 12, generator=torch.Generator().manual_seed(1)).expand(5, 12)


def spec(**options: float) -> PretrainSpec:
    made = recipes.cass_vc(DatasetRef(name="none", fingerprint="0" * 16), tiny.BACKBONES, seed=77)
    return recipes.with_options(made, options)


def some(n: int = 5, d: int = 12, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def arms(hidden: int = 16) -> dict[str, nn.Module]:
    torch.manual_seed(0)
    return {
        name: nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, hidden), nn.Tanh(), nn.Linear(hidden, 12))
        for name in ("cnn", "transformer")
    }


def by_hand(logits: np.ndarray) -> tuple[float, float]:
    """Both terms of one arm, with loops over images and dimensions."""
    n, d = logits.shape
    z = np.array([row / np.sqrt((row**2).sum()) * np.sqrt(d) for row in logits.astype(np.float64)])
    mean = z.sum(axis=0) / n
    variance = [((z[:, k] - mean[k]) ** 2).sum() / (n - 1) for k in range(d)]
    lack = sum(max(0.0, 1 - np.sqrt(v + 1e-4)) for v in variance) / d
    covariances = 0.0
    for k in range(d):
        for m in range(d):
            if k != m:
                covariances += (((z[:, k] - mean[k]) * (z[:, m] - mean[m])).sum() / (n - 1)) ** 2
    return lack, covariances / d


def test_both_terms_and_the_loss_are_those_by_hand():
    r, t = some(seed=2), 3 * some(seed=3) + 1
    method = cass_vc.CassVc(arms(), spec(variance=2.0, covariance=0.5))
    found = {name: value.item() for name, value in method.scalars(r, t).items()}
    (first, second), (third, fourth) = by_hand(r.numpy()), by_hand(t.numpy())
    cosines = [float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)) for a, b in zip(r.numpy(), t.numpy(), strict=True)]
    agreement = float(np.mean([2 - 2 * c for c in cosines]))
    assert found["agreement"] == pytest.approx(agreement, rel=1e-5)
    assert found["variance"] == pytest.approx(first + third, rel=1e-5)
    assert found["covariance"] == pytest.approx(second + fourth, rel=1e-5)
    assert found["loss"] == pytest.approx(agreement + 2 * (first + third) + 0.5 * (second + fourth), rel=1e-5)


def test_a_covariance_by_hand():
    z = torch.tensor([[1.0, 1.0], [-1.0, -1.0], [1.0, 1.0]])  # variances and covariance are 4/3
    assert cass_vc.covariance_term(z).item() == pytest.approx(2 * (4 / 3) ** 2 / 2)
    assert cass_vc.variance_term(z).item() == 0.0
    assert cass_vc.variance_term(z / 2).item() == pytest.approx(1 - np.sqrt(1 / 3 + 1e-4))


def test_the_paper_s_loss_does_not_see_collapse_and_the_variance_term_does():
    constant = ALIKE.clone().requires_grad_()
    assert cass.agreement_loss(constant, constant).item() == pytest.approx(0.0, abs=1e-6)
    term = cass_vc.variance_term(cass_vc.on_sphere(constant))
    assert term.item() == pytest.approx(0.99)  # the standard deviation is √1e-4
    nearly = (ALIKE + 1e-3 * some()).requires_grad_()
    cass_vc.variance_term(cass_vc.on_sphere(nearly)).backward()
    assert nearly.grad is not None and nearly.grad.isfinite().all() and nearly.grad.abs().max() > 0


def test_the_covariance_term_wants_every_direction_in_use():
    line = some(16, 1) * some(1, 100, seed=5)
    assert cass_vc.covariance_term(cass_vc.on_sphere(line)) > 5 * cass_vc.covariance_term(
        cass_vc.on_sphere(some(16, 100))
    )


def test_the_variance_term_is_about_one_minus_the_spread_of_the_collapse_monitor():
    logits = some(64, 40) + 2
    term = cass_vc.variance_term(cass_vc.on_sphere(logits))
    assert term.item() == pytest.approx(1 - collapse.spread(logits), abs=0.02)


def test_neither_order_of_images_nor_scale_of_logits_matters():
    r, t = some(seed=2), some(seed=3)
    method = cass_vc.CassVc(arms(), spec())
    loss = method.scalars(r, t)["loss"].item()
    turned = torch.tensor([3, 1, 4, 0, 2])
    assert method.scalars(7 * r[turned], t[turned] / 5)["loss"].item() == pytest.approx(loss, rel=1e-5)


def test_the_terms_are_computed_in_float32_whatever_the_arms_give():
    r, t = some(seed=2), some(seed=3)
    method = cass_vc.CassVc(arms(), spec())
    wanted = method.scalars(r.half().float(), t.half().float())
    for name, value in method.scalars(r.half(), t.half()).items():
        assert value.dtype == torch.float32 and value.item() == wanted[name].item()
    inputs = method.inputs(PIXELS, draws("a"), 0.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = method.loss(*inputs)
    assert all(value.dtype == torch.float32 and value.isfinite() for value in inside.values())
    assert all(value.isfinite() for value in method.scalars(torch.zeros(4, 12), 1e4 * some(4)).values())


def spreads_after_training(name: str) -> list[float]:
    """The spread of each arm after 40 steps from random weights at the paper's rate, on drawn shapes."""
    shapes = [Image.fromarray(draw(s, np.random.default_rng(i))) for i in range(8) for s in ("disc", "cross")]
    pixels = torch.from_numpy(np.stack([np.asarray(shape.resize((tiny.SIZE, tiny.SIZE))) for shape in shapes]))
    torch.manual_seed(0)
    networks = {
        b.role: backbones.build(b.tag, outputs=100, image_size=tiny.SIZE, weights="random", folder=Path("."))
        for b in tiny.BACKBONES
    }
    method = METHODS.find(name).build(spec(head_dim=100), networks).train()
    optimizer = torch.optim.Adam(method.parameters(), lr=paper.PRETRAIN_OPTIM.lr)
    for step in range(40):
        optimizer.zero_grad()
        method.loss(*method.inputs(pixels, draws("step", step), 0.0))["loss"].backward()
        optimizer.step()
    images = normalise(unit(pixels), spec().augment)
    return [collapse.spread(backbones.forward_in_batches(arm, [images])) for arm in method.arms().values()]


def test_where_the_paper_s_loss_collapses_this_one_does_not():
    assert min(spreads_after_training("cass")) < collapse.MIN_SPREAD
    assert min(spreads_after_training("cass_vc")) > 4 * collapse.MIN_SPREAD


def test_it_refuses_a_batch_of_one_and_options_without_sense():
    with pytest.raises(ValueError, match="batches of 2 or more"):
        cass_vc.build(replace(spec(), batch_size=1), arms())
    with pytest.raises(ValueError, match=r"variance is 0\.0; it must be above zero"):
        cass_vc.build(spec(variance=0.0), arms())
    with pytest.raises(ValueError, match="head_dim is 1"):
        cass_vc.build(spec(head_dim=1), arms())
    assert cass_vc.outputs(spec()) == 1000
