"""Every grid: ids are unique, specs survive JSON, pretraining is shared; the paper's counts, cell by cell."""

import dataclasses
import re

import pytest
from infos import dataset_infos

from pipeline.results.collect import printed_results
from pipeline.runs.identity import from_json, run_id, to_json
from pipeline.study import experiments, paper
from pipeline.study.grid import load_grid
from pipeline.study.names import known_grids


def entries(name, *, seeds=tuple(paper.SEEDS), preset="paper", datasets=None):
    grid = load_grid(name)
    return grid.entries(dataset_infos(datasets or grid.datasets), list(seeds), paper.preset(preset))


def pretrains(name):
    """The ids of the pretraining runs that a grid wants."""
    return {run_id(entry.spec.pretrain) for entry in entries(name) if entry.spec.pretrain}


def counts(name):
    """How many pretraining runs and how many fine-tunes a grid wants."""
    return len(pretrains(name)), len({run_id(entry.spec) for entry in entries(name)})


@pytest.mark.parametrize("preset", paper.PRESETS)
@pytest.mark.parametrize("name", known_grids())
def test_an_entry_has_one_run_per_seed_and_its_spec_survives_json(name, preset):
    found = entries(name, seeds=(77, 78), preset=preset)
    spots = [(p.experiment, p.spec.dataset.name, p.row, p.column, p.spec.seed) for p in found]
    assert len(set(spots)) == len(spots) > 0
    for entry in found:
        assert from_json(to_json(entry.spec)) == entry.spec
        assert run_id(from_json(to_json(entry.spec))) == run_id(entry.spec)


COUNTS = {
    "main": (60, 300),
    "batch_size": (30, 60),
    "epochs": (40, 80),
    "augmentation": (20, 40),
    "cnn_optimizer": (10, 20),
    "transformer": (25, 65),
    "cnn": (30, 75),
    "two_cnns": (10, 20),
    "two_transformers": (10, 20),
    "initialisation": (10, 20),
    "paper": (180, 555),
}


def said(name):
    """A grid's line in the docstring of the experiments: tables, pretraining runs, those of `main`, fine-tunes."""
    (line,) = re.findall(rf"^{name}  +(.*)$", experiments.__doc__, re.MULTILINE)
    return re.split("  +", line)[:4]


@pytest.mark.parametrize(("name", "wanted"), COUNTS.items())
def test_a_grids_counts_are_those_that_the_experiments_docstring_says(name, wanted):
    assert counts(name) == wanted
    _, pretraining, of_main, finetunes = said(name)
    assert (int(pretraining), int(finetunes)) == wanted
    assert int(of_main.split()[0]) == len(pretrains(name) & pretrains("main"))


@pytest.mark.parametrize("name", COUNTS)
def test_a_grids_tables_are_those_that_the_experiments_docstring_says(name):
    found = {(e.experiment, e.spec.dataset.name) for e in entries(name, seeds=(77,))}
    numbers = {experiments.EXPERIMENTS[experiment].tables[dataset] for experiment, dataset in found}
    first, *last = re.findall(r"\d+", said(name)[0])
    expected = set(range(int(first), int(last[0]) + 1)) if " to " in said(name)[0] else {int(first), *map(int, last)}
    assert numbers == expected - {1, 2}  # which repeat what the others show


def test_the_paper_is_the_union_and_trains_the_standard_runs_once():
    ids = {name: {run_id(entry.spec) for entry in entries(name)} for name in known_grids()}
    parts = set(ids) - {"paper", "dino_fb", "cass_vc", "controls", "frozen", "small", "demo", "toy"}
    assert parts == set(COUNTS) - {"paper"}
    assert ids["paper"] == set().union(*(ids[name] for name in parts))
    standard = run_id(entries("main", seeds=(77,), datasets=["brain_mri"])[3].spec.pretrain)
    wanting = {e.experiment for e in entries("paper") if e.spec.pretrain and run_id(e.spec.pretrain) == standard}
    assert wanting == {
        *("main", "batch_size", "epochs", "cnn", "transformer", "two_cnns", "two_transformers", "initialisation")
    }


def test_every_printed_value_of_tables_3_to_21_has_its_entry_and_every_entry_its_value():
    wanted = {(p.experiment, p.spec.dataset.name, p.key, p.column) for p in entries("paper", seeds=(77,))}
    assert wanted == set(printed_results())
    assert {value.table for value in printed_results().values()} == set(range(3, 22))
    assert {table for e in experiments.EXPERIMENTS.values() for table in e.tables.values()} == set(range(3, 22))


def test_the_grid_of_dino_by_its_authors_has_as_many_more_runs_of_dino_as_main():
    assert counts("dino_fb") == (60 + 40, 300 + 100)


def test_cass_with_a_guard_is_a_row_of_its_own_next_to_the_papers_runs():
    assert counts("cass_vc") == (60 + 20, 300 + 100)
    assert {run_id(e.spec) for e in entries("main")} < {run_id(e.spec) for e in entries("cass_vc")}
    for name in ("cass_vc", "small", "demo"):
        found = entries(name, seeds=(77,))
        rows = {e.row[0] for e in found if e.spec.pretrain and e.spec.pretrain.method.name == "cass_vc"}
        assert rows == {"CASS + variance–covariance"}
        assert all(e.spec.pretrain.method.name == "cass" for e in found if e.row[0] == "CASS")


def test_the_controls_are_rows_next_to_the_runs_of_cass_that_small_has_too():
    found = entries("controls", seeds=(77,))
    assert list(dict.fromkeys(e.row[0] for e in found)) == ["CASS", "CASS, shuffled", "Batch norm only", "Supervised"]
    assert counts("controls") == (2 * 3 * 5, 2 * 4 * 2 * 3 * 5)
    small = {run_id(e.spec) for e in entries("small", seeds=(77,))}
    assert {run_id(e.spec) for e in found if e.row[0] in ("CASS", "Supervised")} < small
    pretrained = {e.spec.pretrain.method.name: e.spec.pretrain for e in found if e.spec.pretrain}
    for name, epochs in {"cass_shuffled": 3, "bn_only": 1}.items():
        again = dataclasses.replace(pretrained[name], method=pretrained["cass"].method, epochs=3)
        assert again == pretrained["cass"] and pretrained[name].epochs == epochs


def test_a_smaller_scale_keeps_the_cells_and_the_ratios():
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


def test_what_table_21_starts_from_random_weights_is_also_fine_tuned_from_them():
    for entry in entries("initialisation", seeds=(77,)):
        wanted = {"Random": "random", "Imagenet": "imagenet"}[entry.row[0]]
        assert {arm.weights for arm in entry.spec.pretrain.arms} | {entry.spec.weights} == {wanted}


def test_resnet_200_has_no_imagenet_weights():
    found = [p.spec for p in entries("cnn", seeds=(77,)) if p.spec.backbone == paper.RESNET200.tag]
    assert {spec.weights for spec in found} == {"random"}
    pretrained = [spec.pretrain for spec in found if spec.pretrain]
    assert {tuple(arm.weights for arm in spec.arms) for spec in pretrained} == {("random", "imagenet")}


def test_presets_give_runs_of_their_own():
    ids = [{run_id(p.spec) for p in entries("small", seeds=(77,), preset=preset)} for preset in paper.PRESETS]
    assert ids[0] & ids[1] == ids[0] & ids[2] == ids[1] & ids[2] == set()


def test_a_plain_list_of_runs_gets_rows_that_tell_recipes_apart():
    spec = entries("small", seeds=(77,))[0].spec
    other = dataclasses.replace(spec, epochs=spec.epochs + 1)
    rows = [entry.row for entry in experiments.plain_entries([spec, other])]
    assert len(set(rows)) == 2
    assert experiments.plain_entries([spec])[0].row == ("DINO", "resnet10t (cnn)")
