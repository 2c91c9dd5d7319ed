"""A run is a value: its id is pinned, its JSON goes both ways, and a wrong value is answered."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import pytest

from pipeline.runs import identity
from pipeline.runs import spec as specs
from pipeline.runs.identity import from_json, milestone_of, run_id, to_json
from pipeline.runs.spec import (
    Arm,
    Augment,
    Average,
    DatasetRef,
    FinetuneSpec,
    Jitter,
    Loss,
    Method,
    Optim,
    PretrainSpec,
    Spec,
)

ADAM = Optim(name="adam", lr=1e-3, schedule="cosine", t_max=16, min_lr=1e-6, unit="step")
AUGMENT = Augment(
    first_jitter=Jitter(p=0.3, brightness=0.2, contrast=0.2, saturation=0.2),
    second_jitter=Jitter(p=0.3, brightness=0.2, contrast=0.2, saturation=0.2, hue=0.1),
    perspective_p=0.5,
    perspective=0.2,
    degrees=10.0,
    vertical_flip=0.3,
    horizontal_flip=0.3,
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
    revision=1,
)
PRETRAIN = PretrainSpec(
    dataset=DatasetRef(name="isic", fingerprint="0123456789abcdef"),
    method=Method(name="cass", revision=1, options={"head_dim": 1000}),
    arms=(
        Arm(name="cnn", backbone="resnet50.a1_in1k", weights="imagenet", optim=ADAM),
        Arm(name="transformer", backbone="vit_tiny_patch16_224", weights="random", optim=ADAM),
    ),
    augment=AUGMENT,
    average=Average(start=0.75, revision=1),
    epochs=100,
    batch_size=16,
    image_size=384,
    seed=77,
)
FINETUNE = FinetuneSpec(
    dataset=DatasetRef(name="brain_mri", fingerprint="fedcba9876543210"),
    backbone="resnet50.a1_in1k",
    weights="imagenet",
    pretrain=PRETRAIN,
    arm="cnn",
    label_fraction=0.1,
    augment=AUGMENT,
    optim=dataclasses.replace(ADAM, lr=3e-4),
    loss=Loss(name="focal", alpha=1.0, gamma=2.0, class_weights="minmax", revision=1),
    epochs=50,
    patience=5,
    batch_size=16,
    image_size=384,
    seed=78,
)
SUPERVISED = dataclasses.replace(FINETUNE, pretrain=None)
NO_AVERAGE = dataclasses.replace(PRETRAIN, average=None)
ALL = (PRETRAIN, FINETUNE, SUPERVISED, NO_AVERAGE)


def test_the_ids_of_these_runs_never_change() -> None:
    """Results of years lie under such names. Does this fail, then the hash has changed: mend the code, not the test."""
    assert run_id(PRETRAIN) == "isic-cass-s77-f636716982e4"
    assert run_id(FINETUNE) == "brain_mri-cass-resnet50-10pct-s78-58b9072f131a"
    assert run_id(SUPERVISED) == "brain_mri-supervised-resnet50-10pct-s78-8044e9c42c57"


@pytest.mark.parametrize("spec", ALL)
def test_a_spec_comes_back_from_its_json_with_its_id(spec: Spec) -> None:
    text = json.dumps(to_json(spec))
    back = from_json(json.loads(text))
    assert back == spec
    assert run_id(back) == run_id(spec)
    assert json.dumps(to_json(back)) == text


def test_whole_numbers_written_for_fractions_mean_the_same_run() -> None:
    whole = dataclasses.replace(FINETUNE, label_fraction=1)
    fraction = dataclasses.replace(FINETUNE, label_fraction=1.0)
    assert run_id(whole) == run_id(fraction)
    value = to_json(fraction)
    value["label_fraction"] = 1
    assert run_id(from_json(value)) == run_id(fraction)


def test_the_order_of_keys_in_the_json_is_no_part_of_the_value() -> None:
    shuffled = dict(reversed(to_json(FINETUNE).items()))
    assert run_id(from_json(shuffled)) == run_id(FINETUNE)


def test_the_papers_lengths_are_milestones_of_each_other() -> None:
    lengths = [dataclasses.replace(PRETRAIN, epochs=epochs) for epochs in (50, 100, 200, 300)]  # Tables 8 and 16
    for i, shorter in enumerate(lengths):
        assert [milestone_of(shorter, longer) for longer in lengths] == [j > i for j in range(4)]


def test_only_a_run_that_is_passed_through_before_the_averaging_begins_is_a_milestone(monkeypatch: Any) -> None:
    def at(epochs: int, **changes: Any) -> PretrainSpec:
        return dataclasses.replace(PRETRAIN, epochs=epochs, **changes)

    assert PRETRAIN.average and list(PRETRAIN.average.window(10)) == [7, 8, 9]
    assert milestone_of(at(7), at(10)) and not milestone_of(at(8), at(10))
    assert milestone_of(at(9, average=None), at(10, average=None))
    assert not milestone_of(at(1, average=Average(start=0.0)), at(10, average=Average(start=0.0)))
    assert not milestone_of(at(5), at(10, average=None))
    assert not milestone_of(at(5, seed=78), at(10))
    assert not milestone_of(
        at(5, method=Method(name="other", revision=1)), at(10, method=Method(name="other", revision=1))
    )
    assert not milestone_of(FINETUNE, dataclasses.replace(FINETUNE, epochs=99))
    assert not milestone_of(PRETRAIN, FINETUNE) and not milestone_of(SUPERVISED, PRETRAIN)
    monkeypatch.setattr(identity, "ENDLESS_SCHEDULES", ("constant",))
    assert not milestone_of(at(5), at(10))


LATER = [
    (PRETRAIN, "arms.0.optim.warmup", 0.0, 0.1),
    (PRETRAIN, "arms.0.optim.last_weight_decay", None, 0.4),
    (PRETRAIN, "arms.0.optim.clip", 0.0, 3.0),
    (PRETRAIN, "augment.grey", 0.0, 0.2),
    (PRETRAIN, "augment.blur", None, {"p": 0.5, "least": 0.1, "most": 2.0, "side": 13}),
    (FINETUNE, "augment.solarise", 0.0, 0.2),
    (FINETUNE, "loss.counted", "train", "train and val"),
    (PRETRAIN, "precision", "auto", "float16"),
    (PRETRAIN, "keep_gradients", False, True),
    (FINETUNE, "precision", "auto", "bfloat16"),
    (FINETUNE, "stopping", "best", "previous"),
]


@pytest.mark.parametrize(("spec", "name", "default", "other"), LATER)
def test_a_field_that_came_later_is_out_of_the_id_while_it_means_as_before(
    spec: Spec, name: str, default: object, other: object
) -> None:
    *path, last = name.split(".")

    def parent(value: Any) -> Any:
        for part in path:
            value = value[int(part)] if part.isdigit() else value[part]
        return value

    def with_it(value: object) -> Spec:
        new = json.loads(json.dumps(old))
        parent(new)[last] = value
        return from_json(new)

    old = json.loads(json.dumps(to_json(spec)))
    del parent(old)[last]  # the spec.json of a run from before the field
    assert run_id(from_json(old)) == run_id(spec)
    assert parent(to_json(from_json(old)))[last] == default
    assert run_id(with_it(default)) == run_id(spec)
    assert run_id(with_it(other)) != run_id(spec)


def test_every_field_with_a_default_of_a_spec_that_has_ids_is_marked_as_later() -> None:
    for cls in (PretrainSpec, FinetuneSpec):
        defaulted = {item.name for item in dataclasses.fields(cls) if item.default is not dataclasses.MISSING}
        later = {item.name for item in dataclasses.fields(cls) if item.metadata.get("later")}
        assert defaulted == later


def changed(spec: PretrainSpec | FinetuneSpec) -> list[Spec]:
    """The spec with one thing changed, for everything that can be."""
    out: list[Spec] = [
        dataclasses.replace(spec, dataset=DatasetRef(name="other", fingerprint=spec.dataset.fingerprint)),
        dataclasses.replace(spec, dataset=DatasetRef(name=spec.dataset.name, fingerprint="0" * 16)),
        dataclasses.replace(spec, augment=dataclasses.replace(spec.augment, revision=2)),
        dataclasses.replace(spec, augment=dataclasses.replace(spec.augment, mean=(0.5, 0.5, 0.5))),
        dataclasses.replace(spec, epochs=7),
        dataclasses.replace(spec, batch_size=7),
        dataclasses.replace(spec, image_size=224),
        dataclasses.replace(spec, seed=1),
    ]
    if isinstance(spec, PretrainSpec):
        out += [
            dataclasses.replace(spec, average=None),
            dataclasses.replace(spec, average=Average(start=0.75, revision=2)),
            dataclasses.replace(spec, method=Method(name="cass", revision=2, options={"head_dim": 1000})),
            dataclasses.replace(spec, method=Method(name="cass", revision=1, options={"head_dim": 8})),
            dataclasses.replace(spec, arms=spec.arms[:1]),
            dataclasses.replace(spec, arms=spec.arms[::-1]),
            dataclasses.replace(spec, arms=tuple(dataclasses.replace(arm, weights="random") for arm in spec.arms)),
        ]
    else:
        out += [
            dataclasses.replace(spec, pretrain=None),
            dataclasses.replace(spec, pretrain=dataclasses.replace(PRETRAIN, seed=1)),
            dataclasses.replace(spec, label_fraction=0.01),
            dataclasses.replace(spec, loss=dataclasses.replace(spec.loss, revision=2)),
            dataclasses.replace(spec, loss=dataclasses.replace(spec.loss, class_weights="none")),
            dataclasses.replace(spec, optim=ADAM),
            dataclasses.replace(spec, patience=6),
            dataclasses.replace(spec, weights="random"),
        ]
    return out


@pytest.mark.parametrize("spec", [PRETRAIN, FINETUNE])
def test_whatever_of_the_science_changes_the_id_changes(spec: Spec) -> None:
    ids = [run_id(spec), *map(run_id, changed(spec))]
    assert len(set(ids)) == len(ids)


def having(value: dict[str, Any], *path: str, **entries: object) -> dict[str, Any]:
    """A copy of the JSON in which the object at `path` has `entries` too."""
    copy: dict[str, Any] = json.loads(json.dumps(value))
    inner = copy
    for name in path:
        inner = inner[name]
    inner.update(entries)
    return copy


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (having(to_json(PRETRAIN), epoch=3), "PretrainSpec has no field 'epoch'; known: dataset, .*epochs"),
        (having(to_json(FINETUNE), "pretrain", lr=3), "PretrainSpec has no field 'lr'; known: dataset, "),
        (having(to_json(FINETUNE), "optim", beta=3), "Optim has no field 'beta'; known: name, lr, momentum"),
        (having(to_json(FINETUNE), kind="tuning"), "a spec's kind is 'tuning'; known: pretrain, finetune"),
    ],
)
def test_an_unknown_field_is_answered_with_the_known_ones(value: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_json(value)


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
        (lambda: specs.Blur(p=0.5, least=0.1, most=2.0, side=4), "give an odd `side`"),
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
        (lambda: dataclasses.replace(FINETUNE, arm="transformer"), "was pretrained as vit_tiny_patch16_224, it cannot"),
    ],
)
def test_a_value_that_makes_no_sense_dies_where_it_is_written(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_a_spec_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        PRETRAIN.seed = 1  # type: ignore[misc]


def test_a_run_is_named_after_its_method() -> None:
    assert [specs.method_of(spec) for spec in (PRETRAIN, FINETUNE, SUPERVISED)] == ["cass", "cass", "supervised"]


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


def test_one_cosine_over_the_run_with_a_warm_up_by_hand() -> None:
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
