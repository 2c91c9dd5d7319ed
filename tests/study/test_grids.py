"""Every grid: ids are unique, specs survive JSON, pretraining is shared; the paper's counts, cell by cell."""

import dataclasses

import pytest

from pipeline.data.datasets import DATASETS
from pipeline.results.collect import printed_results
from pipeline.runs.identity import from_json, run_id, to_json
from pipeline.runs.spec import DatasetRef
from pipeline.study import experiments, paper
from pipeline.study.grids import GRIDS


def cards(names):
    out = []
    for name in names:
        plugin = DATASETS.find(name).DATASET
        ref = DatasetRef(name=name, fingerprint=f"{name:0<16}"[:16])
        out.append(paper.DatasetInfo(ref, plugin.label_fractions, plugin.metric))
    return out


def entries(name, *, seeds=tuple(paper.SEEDS), preset="paper", datasets=None):
    module = GRIDS.find(name)
    return module.entries(cards(datasets or module.DATASETS), list(seeds), paper.preset(preset))


def counts(name):
    """How many pretraining runs and how many fine-tunes a grid wants."""
    wanted = {run_id(place.spec): place.spec for place in entries(name)}
    return len({run_id(spec.pretrain) for spec in wanted.values() if spec.pretrain}), len(wanted)


@pytest.mark.parametrize("preset", paper.PRESETS)
@pytest.mark.parametrize("name", GRIDS.names())
def test_a_place_has_one_run_a_seed_and_its_spec_survives_json(name, preset):
    found = entries(name, seeds=(77, 78), preset=preset)
    spots = [(p.experiment, p.spec.dataset.name, p.row, p.column, p.spec.seed) for p in found]
    assert len(set(spots)) == len(spots) > 0
    for place in found:
        assert from_json(to_json(place.spec)) == place.spec
        assert run_id(from_json(to_json(place.spec))) == run_id(place.spec)


def test_main_is_60_pretraining_runs_and_300_fine_tunes():
    assert counts("main") == (60, 300)


@pytest.mark.parametrize(
    ("name", "wanted"),
    {
        "batch_size": (30, 60),
        "epochs": (40, 80),
        "augmentation": (20, 40),
        "cnn_optimizer": (10, 20),
        "transformer": (25, 65),
        "cnn": (30, 75),
        "two_cnns": (10, 20),
        "two_transformers": (10, 20),
        "initialisation": (10, 20),
    }.items(),
)
def test_an_ablations_counts_are_those_its_docstring_says(name, wanted):
    assert counts(name) == wanted
    text = " ".join(GRIDS.find(name).__doc__.split())
    assert f"{wanted[0]} pretraining runs, {wanted[1]} fine-tunes" in text


def test_the_paper_is_the_union_and_trains_the_standard_runs_once():
    ids = {name: {run_id(p.spec) for p in entries(name)} for name in GRIDS.names()}
    parts = set(ids) - {"paper", "dino_fb", "small", "demo", "toy"}
    assert ids["paper"] == set().union(*(ids[name] for name in parts))
    standard = run_id(entries("main", seeds=(77,), datasets=["brain_mri"])[3].spec.pretrain)
    wanting = {p.experiment for p in entries("paper") if p.spec.pretrain and run_id(p.spec.pretrain) == standard}
    assert wanting == {
        *("main", "batch_size", "epochs", "cnn", "transformer", "two_cnns", "two_transformers", "initialisation")
    }


def test_every_printed_value_of_tables_3_to_21_has_its_place_and_every_place_its_value():
    wanted = {(p.experiment, p.spec.dataset.name, p.key, p.column) for p in entries("paper", seeds=(77,))}
    assert wanted == set(printed_results())
    assert {value.table for value in printed_results().values()} == set(range(3, 22))
    assert {table for e in experiments.EXPERIMENTS.values() for table in e.tables.values()} == set(range(3, 22))


def test_dino_by_its_authors_is_main_and_as_many_runs_of_dino_again():
    assert counts("dino_fb") == (60 + 40, 300 + 100)


def test_a_smaller_scale_keeps_the_places_and_the_ratios():
    small, full = entries("toy", seeds=(77,)), entries("paper", seeds=(77,))
    spots = [{(p.experiment, p.spec.dataset.name, p.key, p.column) for p in found} for found in (small, full)]
    assert spots[0] == spots[1]
    epochs = [p.spec.pretrain.epochs for p in small if p.experiment == "epochs" and p.spec.arm == "cnn"]
    assert epochs[:4] == [1, 2, 4, 6]


def test_a_dataset_the_paper_did_not_try_gets_the_whole_experiment():
    found = entries("transformer", seeds=(77,), datasets=["isic"])
    assert {p.experiment for p in found} == {"transformer", "transformer_supervised"}
    assert {p.row for p in found if p.experiment == "transformer"} == {
        ("ResNet-50", b.title) for b in (paper.DEIT_B16, paper.VIT_B16, paper.VIT_L16)
    }


def test_two_networks_of_one_kind_are_two_arms():
    pair = next(p for p in entries("two_cnns", seeds=(77,)) if p.row == ("ResNet-50", "DenseNet-161"))
    assert [arm.name for arm in pair.spec.pretrain.arms] == ["cnn", "cnn_2"]
    arms = {p.spec.arm: p.spec.backbone for p in entries("two_cnns", seeds=(77,)) if p.row == pair.row}
    assert arms == {"cnn": paper.RESNET50.tag, "cnn_2": paper.DENSENET161.tag}


def test_what_table_21_starts_from_random_weights_starts_so_throughout():
    for place in entries("initialisation", seeds=(77,)):
        wanted = {"Random": "random", "Imagenet": "imagenet"}[place.row[0]]
        assert {arm.weights for arm in place.spec.pretrain.arms} | {place.spec.weights} == {wanted}


def test_resnet_200_has_no_imagenet_weights():
    found = [p.spec for p in entries("cnn", seeds=(77,)) if p.spec.backbone == paper.RESNET200.tag]
    assert {spec.weights for spec in found} == {"random"}
    pretrained = [spec.pretrain for spec in found if spec.pretrain]
    assert {tuple(arm.weights for arm in spec.arms) for spec in pretrained} == {("random", "imagenet")}


def test_presets_give_runs_of_their_own():
    ids = [{run_id(p.spec) for p in entries("small", seeds=(77,), preset=preset)} for preset in paper.PRESETS]
    assert ids[0] & ids[1] == ids[0] & ids[2] == ids[1] & ids[2] == set()


def test_a_plain_list_of_runs_gets_places_that_tell_recipes_apart():
    spec = entries("small", seeds=(77,))[0].spec
    other = dataclasses.replace(spec, epochs=spec.epochs + 1)
    rows = [place.row for place in experiments.plain_entries([spec, other])]
    assert len(set(rows)) == 2
    assert experiments.plain_entries([spec])[0].row == ("DINO", "resnet10t (cnn)")
