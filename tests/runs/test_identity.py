"""A run's id is pinned and follows the science alone; its JSON goes both ways."""

from __future__ import annotations

import copy
import dataclasses
import gc
import json
import pickle
from typing import Any

import pytest
from specs import ADAM, ALL, FINETUNE, PRETRAIN, SUPERVISED

from pipeline.runs import identity
from pipeline.runs.identity import from_json, milestone_of, run_id, to_json
from pipeline.runs.spec import Average, DatasetRef, FinetuneSpec, Method, PretrainSpec, Spec


def test_the_ids_of_these_runs_never_change() -> None:
    """Results of years are in folders of these names. If this fails, the hash changed: fix the code, not the test."""
    assert run_id(PRETRAIN) == "isic-cass-s77-f636716982e4"
    assert run_id(FINETUNE) == "brain_mri-cass-resnet50-10pct-s78-58b9072f131a"
    assert run_id(SUPERVISED) == "brain_mri-supervised-resnet50-10pct-s78-8044e9c42c57"


@pytest.mark.parametrize("spec", ALL)
def test_a_spec_survives_json_with_its_id(spec: Spec) -> None:
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


def test_the_order_of_keys_in_the_json_does_not_matter() -> None:
    shuffled = dict(reversed(to_json(FINETUNE).items()))
    assert run_id(from_json(shuffled)) == run_id(FINETUNE)


def test_the_papers_lengths_are_milestones_of_each_other() -> None:
    lengths = [dataclasses.replace(PRETRAIN, epochs=epochs) for epochs in (50, 100, 200, 300)]  # Tables 8 and 16
    for i, shorter in enumerate(lengths):
        assert [milestone_of(shorter, longer) for longer in lengths] == [j > i for j in range(4)]


def test_a_milestone_ends_before_the_longer_run_starts_to_average(monkeypatch: Any) -> None:
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
def test_a_later_field_is_not_in_the_id_while_it_holds_its_default(
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


def changed(spec: PretrainSpec | FinetuneSpec) -> list[Spec]:
    """The spec with one thing changed, for each thing that can change."""
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
def test_any_change_of_the_science_changes_the_id(spec: Spec) -> None:
    ids = [run_id(spec), *map(run_id, changed(spec))]
    assert len(set(ids)) == len(ids)


def with_entries(value: dict[str, Any], *path: str, **entries: object) -> dict[str, Any]:
    """A copy of the JSON with `entries` added to the object at `path`."""
    copy: dict[str, Any] = json.loads(json.dumps(value))
    inner = copy
    for name in path:
        inner = inner[name]
    inner.update(entries)
    return copy


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (with_entries(to_json(PRETRAIN), epoch=3), "PretrainSpec has no field 'epoch'; known: dataset, .*epochs"),
        (with_entries(to_json(FINETUNE), "pretrain", lr=3), "PretrainSpec has no field 'lr'; known: dataset, "),
        (with_entries(to_json(FINETUNE), "optim", beta=3), "Optim has no field 'beta'; known: name, lr, momentum"),
        (with_entries(to_json(FINETUNE), kind="tuning"), "a spec's kind is 'tuning'; known: pretrain, finetune"),
    ],
)
def test_an_unknown_field_is_an_error_that_names_the_known_ones(value: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_json(value)


def test_what_is_computed_for_an_id_is_neither_in_the_value_nor_in_its_pickle() -> None:
    spec = copy.deepcopy(FINETUNE)
    before = pickle.dumps(spec), dict(vars(spec))
    run_id(spec)
    assert (pickle.dumps(spec), vars(spec)) == before
    assert run_id(pickle.loads(before[0])) == run_id(FINETUNE)


def test_what_is_computed_for_an_id_is_forgotten_with_the_value() -> None:
    gc.collect()
    before = len(identity._KNOWN)
    ids = {run_id(dataclasses.replace(PRETRAIN, seed=seed)) for seed in range(100)}
    gc.collect()
    assert len(ids) == 100
    assert len(identity._KNOWN) <= before + 10  # the parts that these runs share with PRETRAIN


def test_equal_values_that_json_writes_in_different_ways_keep_their_own_ids() -> None:
    options = [
        dataclasses.replace(PRETRAIN, method=Method(name="cass", revision=1, options={"a": a})) for a in (1, 1.0)
    ]
    assert options[0] == options[1]
    assert run_id(options[0]) != run_id(options[1])
