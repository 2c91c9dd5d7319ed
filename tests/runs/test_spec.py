"""A run is a value: a wrong one is an error, and its schedules are closed forms."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
from specs import ADAM, FINETUNE, PRETRAIN, SUPERVISED

from pipeline.runs import spec as values
from pipeline.runs.spec import Average, FinetuneSpec, PretrainSpec


def test_every_field_of_a_spec_with_a_default_is_marked_as_later() -> None:
    for cls in (PretrainSpec, FinetuneSpec):
        defaulted = {item.name for item in dataclasses.fields(cls) if item.default is not dataclasses.MISSING}
        later = {item.name for item in dataclasses.fields(cls) if item.metadata.get("later")}
        assert defaulted == later


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: dataclasses.replace(ADAM, name="lamb"), "Optim.name is 'lamb'; known: adam, adamw, sgd"),
        (lambda: dataclasses.replace(ADAM, lr=0), "lr is 0; it must be above zero"),
        (lambda: dataclasses.replace(ADAM, lr=float("nan")), "lr is nan; it must be above zero"),
        (lambda: dataclasses.replace(ADAM, schedule="step"), "Optim.schedule is 'step'; known: cosine, once, constant"),
        (lambda: dataclasses.replace(ADAM, unit="batch"), "Optim.unit is 'batch'; known: step, epoch"),
        (lambda: dataclasses.replace(ADAM, t_max=0), "t_max is 0"),
        (lambda: dataclasses.replace(ADAM, warmup=1.0), r"Optim.warmup is 1\.0; it is a fraction of the run"),
        (lambda: dataclasses.replace(ADAM, clip=-1.0), r"Optim.clip is -1\.0; give the maximum norm"),
        (lambda: values.Blur(p=0.5, least=0.1, most=2.0, side=4), "give an odd `side`"),
        (lambda: Average(start=1.0), r"Average.start is 1\.0; it is a fraction of the epochs in \[0, 1\)"),
        (lambda: dataclasses.replace(FINETUNE.loss, name="bce"), "Loss.name is 'bce'; known: focal"),
        (lambda: dataclasses.replace(FINETUNE.loss, class_weights="x"), "Loss.class_weights is 'x'; known: minmax"),
        (lambda: dataclasses.replace(PRETRAIN, epochs=0), "epochs is 0; it must be above zero"),
        (lambda: dataclasses.replace(PRETRAIN, batch_size=-1), "batch_size is -1"),
        (lambda: dataclasses.replace(PRETRAIN, precision="fp8"), "PretrainSpec.precision is 'fp8'; known: auto"),
        (lambda: dataclasses.replace(PRETRAIN, arms=()), "give each arm a name of its own"),
        (lambda: dataclasses.replace(PRETRAIN, arms=PRETRAIN.arms[:1] * 2), r"named \['cnn', 'cnn'\]; give each"),
        (lambda: dataclasses.replace(FINETUNE, label_fraction=0), r"label_fraction is 0; .* in \(0, 1\]"),
        (lambda: dataclasses.replace(FINETUNE, label_fraction=10), "label_fraction is 10"),
        (lambda: dataclasses.replace(FINETUNE, patience=0), "patience is 0"),
        (lambda: dataclasses.replace(FINETUNE, weights="jft"), "FinetuneSpec.weights is 'jft'; known: imagenet"),
        (lambda: dataclasses.replace(FINETUNE, stopping="never"), "FinetuneSpec.stopping is 'never'; known: best"),
        (lambda: dataclasses.replace(FINETUNE, arm="mlp"), "there is no arm 'mlp'; known: cnn, transformer"),
        (lambda: dataclasses.replace(FINETUNE, arm="transformer"), "was pretrained as vit_tiny_patch16_224, not"),
    ],
)
def test_a_value_that_makes_no_sense_is_an_error_where_it_is_written(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_a_spec_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        PRETRAIN.seed = 1  # type: ignore[misc]


def test_a_run_has_the_name_of_its_method() -> None:
    assert [values.method_of(spec) for spec in (PRETRAIN, FINETUNE, SUPERVISED)] == ["cass", "cass", "supervised"]


def test_the_cosine_by_hand() -> None:
    optim = dataclasses.replace(ADAM, lr=0.9, min_lr=0.1, t_max=16)
    rates = {step: optim.lr_at(step=step, epoch=0) for step in (0, 8, 16, 24, 32, 320)}
    assert rates == pytest.approx({0: 0.9, 8: 0.5, 16: 0.1, 24: 0.5, 32: 0.9, 320: 0.9})


def test_the_schedule_counts_steps_or_epochs_as_told() -> None:
    by_epoch = dataclasses.replace(ADAM, unit="epoch")
    assert by_epoch.lr_at(step=999, epoch=16) == pytest.approx(1e-6)
    assert ADAM.lr_at(step=16, epoch=999) == pytest.approx(1e-6)
    constant = dataclasses.replace(ADAM, schedule="constant")
    assert {constant.lr_at(step=step, epoch=step) for step in (0, 5, 16)} == {1e-3}


def test_one_cosine_over_the_run_after_a_warm_up_by_hand() -> None:
    optim = dataclasses.replace(ADAM, schedule="once", lr=0.9, min_lr=0.1, warmup=0.2)
    rates = {done: optim.lr_at(step=7, epoch=3, progress=done) for done in (0.0, 0.1, 0.2, 0.6, 1.0)}
    assert rates == pytest.approx({0.0: 0.0, 0.1: 0.45, 0.2: 0.9, 0.6: 0.5, 1.0: 0.1})


def test_the_weight_decay_stays_or_follows_half_a_cosine() -> None:
    stays = dataclasses.replace(ADAM, weight_decay=0.04)
    assert {stays.weight_decay_at(done) for done in (0.0, 0.5, 1.0)} == {0.04}
    rises = dataclasses.replace(stays, last_weight_decay=0.4)
    assert [rises.weight_decay_at(done) for done in (0.0, 0.5, 1.0)] == pytest.approx([0.04, 0.22, 0.4])


def test_the_cosine_is_torchs_over_its_first_period() -> None:
    import torch

    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=ADAM.lr)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=ADAM.t_max, eta_min=ADAM.min_lr)
    for step in range(2 * ADAM.t_max + 1):
        assert scheduler.get_last_lr()[0] == pytest.approx(ADAM.lr_at(step=step, epoch=0), rel=1e-9, abs=1e-12)
        optimizer.step()
        scheduler.step()
