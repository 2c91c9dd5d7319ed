"""A grid as a TOML file: the runs of a built-in grid of the same setting, or one clear error."""

from __future__ import annotations

import dataclasses
import re
import sys
import typing
from pathlib import Path

import pytest
from commands import command
from repository import ROOT

from pipeline.core import toml
from pipeline.jobs.plan import make_plan
from pipeline.runs.cluster import Cluster
from pipeline.runs.identity import run_id
from pipeline.runs.spec import FinetuneSpec
from pipeline.study.grid import load_grid
from pipeline.study.grid_file import GridFile, read_grid

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SMALL = """
datasets = ["brain_mri", "isic"]
methods = ["dino", "cass", "cass_vc", "supervised", "frozen"]
image_size = 64
seeds = 2
[backbones]
cnn = "resnet10t.c3_in1k"
transformer = "vit_tiny_patch16_224.augreg_in21k_ft_in1k"
weights = "random"
[pretrain]
epochs = 3
[pretrain.cass]
lr = 1e-6
min_lr = 1e-7
images = 800
[pretrain.dino]
images = 800
options = { out_dim = 4096 }
[finetune]
epochs = 5
"""
DEMO = """
datasets = ["toy"]
methods = ["cass", "cass_vc", "supervised", "frozen"]
image_size = 64
seeds = 2
[backbones]
cnn = "test_resnet.r160_in1k"
transformer = ["test_vit3.r160_in1k"]
weights = "random"
[pretrain]
epochs = 4
cass = { lr = 2e-5, min_lr = 2e-6 }
cass_vc = { epochs = 12, lr = { cnn = 1e-3, transformer = 1e-4 } }
[finetune]
epochs = 20
lr = 1e-3
"""
PAPER = """
datasets = ["autoimmune", "dermofit", "brain_mri", "isic"]
methods = {methods}
image_size = 384
[backbones]
cnn = "resnet50.a1_in1k"
transformer = "vit_base_patch16_384.augreg_in21k_ft_in1k"
"""
MAIN = PAPER.format(methods='["dino", "cass", "supervised"]')
DINO_FB = PAPER.format(methods='["dino", "dino_fb", "cass", "supervised"]')
CONTROLS = """
datasets = ["brain_mri", "isic"]
methods = ["cass", "cass_shuffled", "bn_only", "supervised"]
image_size = 64
seeds = 3
[backbones]
cnn = "resnet10t.c3_in1k"
transformer = "vit_tiny_patch16_224.augreg_in21k_ft_in1k"
weights = "random"
[pretrain]
epochs = 3
cass = { lr = 1e-6, min_lr = 1e-7, images = 800 }
[finetune]
epochs = 5
"""
FILES = {"small": SMALL, "demo": DEMO, "main": MAIN, "dino_fb": DINO_FB, "controls": CONTROLS}


def write(folder: Path, text: str) -> str:
    (folder / "mine.toml").write_text(text)
    return str(folder / "mine.toml")


def ids(grid: str, folder: Path, preset: str) -> set[str]:
    site = Cluster(shards=str(folder / "shards"), runs=str(folder / "runs"))
    return set(make_plan(grid, site, preset=preset).runs)


@pytest.mark.parametrize("preset", ["paper", "notebook", "sound"])
@pytest.mark.parametrize("name", FILES)
def test_the_setting_of_a_built_in_grid_asks_for_its_runs(name: str, preset: str, tmp_path: Path) -> None:
    assert ids(write(tmp_path, FILES[name]), tmp_path, preset) == ids(name, tmp_path, preset)


def specs(folder: Path, text: str, *, preset: str = "paper") -> list[FinetuneSpec]:
    site = Cluster(shards=str(folder / "shards"), runs=str(folder / "runs"))
    return [entry.spec for entry in make_plan(write(folder, text), site, seeds=1, preset=preset).entries]


def test_its_numbers_reach_the_runs(tmp_path: Path) -> None:
    text = DEMO.replace("epochs = 4", "epochs = 4\nbatch_size = 8")
    text = text.replace("lr = 1e-3\n", 'lr = 1e-3\npatience = 2\nclass_weights = "inverse"\nbatch_size = 4\n')
    text = text.replace("image_size = 64", "image_size = 48\nlabel_fractions = [0.25, 0.5]")
    found = [spec for spec in specs(tmp_path, text) if not spec.probe]
    assert {spec.label_fraction for spec in found} == {0.25, 0.5} and len(found) == 3 * 2 * 2
    for spec in found:
        assert (spec.batch_size, spec.patience, spec.image_size) == (4, 2, 48)
        assert (spec.loss.class_weights, spec.loss.gamma) == ("inverse", 2.0)
    guarded = next(spec.pretrain for spec in found if spec.pretrain and spec.pretrain.method.name == "cass_vc")
    assert guarded is not None and (guarded.epochs, guarded.batch_size, guarded.image_size) == (12, 8, 48)
    assert [arm.optim.lr for arm in guarded.arms] == [1e-3, 1e-4]


def test_a_number_has_one_meaning_with_and_without_a_point(tmp_path: Path) -> None:
    text = DEMO.replace("seeds = 2", "seeds = 2\nlabel_fractions = [0.5, 1]")
    text = text.replace("epochs = 12,", "epochs = 12, options = { variance = 2, head_dim = 64 },")
    text = text.replace("lr = { cnn = 1e-3,", "lr = { cnn = 1,")
    other = text.replace("[0.5, 1]", "[0.5, 1.0]").replace("variance = 2", "variance = 2.0").replace("= 1,", "= 1.0,")
    found, wanted = specs(tmp_path, text), specs(tmp_path, other)
    assert text != other and list(map(run_id, found)) == list(map(run_id, wanted))
    guarded = next(s.pretrain for s in found if s.pretrain and s.pretrain.method.name == "cass_vc")
    assert guarded is not None and guarded.method.options["head_dim"] == 64
    dino = SMALL.replace("{ out_dim = 4096 }", "{ out_dim = 4096, student_temperature = 1 }")
    alike = dino.replace("temperature = 1 ", "temperature = 1.0 ")
    found, wanted = specs(tmp_path, dino), specs(tmp_path, alike)
    assert dino != alike and list(map(run_id, found)) == list(map(run_id, wanted))


def test_the_preset_decides_what_the_file_leaves_open(tmp_path: Path) -> None:
    assert {spec.loss.class_weights for spec in specs(tmp_path, DEMO, preset="sound")} == {"inverse"}
    fixed = DEMO + 'class_weights = "none"\n'
    trained = [spec for spec in specs(tmp_path, fixed, preset="sound") if not spec.probe]
    assert {spec.loss.class_weights for spec in trained} == {"none"}


def test_two_networks_of_one_role_are_two_arms_and_titles_tell_them_apart(tmp_path: Path) -> None:
    text = MAIN.replace('cnn = "resnet50.a1_in1k"', 'cnn = ["resnet50.a1_in1k", "resnet50.tv_in1k"]')
    text = text.replace('transformer = "vit_base_patch16_384.augreg_in21k_ft_in1k"\n', "")
    entries, _ = load_grid(write(tmp_path, text)).runs([_toy()], [77], _paper())
    assert {entry.row[1] for entry in entries} == {"ResNet-50", "resnet50"}
    cass = [entry.spec for entry in entries if entry.row[0] == "CASS"]
    assert {spec.arm for spec in cass} == {"cnn", "cnn_2"} and len({run_id(spec.pretrain) for spec in cass}) == 1
    alike = text.replace("resnet50.a1_in1k", "resnet50.b1k_in1k")
    entries, _ = load_grid(write(tmp_path, alike)).runs([_toy()], [77], _paper())
    assert {entry.row[1] for entry in entries} == {"resnet50.b1k_in1k", "resnet50.tv_in1k"}


def _toy():
    from infos import dataset_infos

    return dataset_infos(["toy"])[0]


def _paper():
    from pipeline.study import paper

    return paper.preset("paper")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seeds = 2", "seed = 2", "unknown key 'seed'; known: datasets, methods, image_size, seeds, "),
        ("epochs = 20", "epoch = 20", "unknown key 'finetune.epoch'; known: finetune.epochs, "),
        ("lr = 2e-5, ", "rate = 2e-5, ", "unknown key 'pretrain.cass.rate'; known: pretrain.cass.epochs, "),
        ("cass = {", "simclr = {", "unknown key 'pretrain.simclr'; known: pretrain.epochs, "),
        ("seeds = 2", 'seeds = "2"', "seeds is '2'; it must be a int"),
        ("seeds = 2", "seeds = true", "seeds is True; it must be a int"),
        ("seeds = 2", "seeds = 0", "seeds is 0; it must be above zero"),
        ("image_size = 64", "", "image_size is missing; add it"),
        ('datasets = ["toy"]', "", "datasets is missing; add it"),
        ('datasets = ["toy"]', "datasets = []", r"datasets is \[\]; name at least one, and each once"),
        ('datasets = ["toy"]', 'datasets = "toy"', "datasets is 'toy'; it must be a list of texts"),
        ('datasets = ["toy"]', 'datasets = ["toy:patient"]', "there is no split 'patient'; known: image, grouped"),
        ('"supervised", ', '"superviced", ', "methods is 'superviced'; known: cass, cass_vc, "),
        ('"supervised", ', '"cass", ', "methods is .*; name at least one, and each once"),
        ('"cass_vc", ', "", r"\[pretrain.cass_vc\] is set, but methods does not name cass_vc; add or remove it"),
        ('transformer = ["test_vit3.r160_in1k"]', "", r"cass trains two networks .* \[backbones\] names 1; name two"),
        ('transformer = ["test_vit3.r160_in1k"]', "transformer = 3", "backbones.transformer is 3; it must be a str"),
        ("test_vit3.r160_in1k", "test_resnet.r160_in1k", "name each once, by timm's name"),
        ("test_vit3.r160", "tset_vit3.r160", "timm has no network 'tset_vit3'; similar names: .*test_vit3"),
        ('weights = "random"', 'weights = "best"', "backbones.weights is 'best'; known: imagenet, random"),
        ("epochs = 4", "epochs = 0", "pretrain.epochs is 0; it must be above zero"),
        ("epochs = 12", "epochs = -1", "pretrain.cass_vc.epochs is -1; it must be above zero"),
        ("epochs = 12", "images = 0", "pretrain.cass_vc.images is 0; it must be above zero"),
        ("epochs = 20", "epochs = 2.5", "finetune.epochs is 2.5; it must be a int"),
        ("lr = 1e-3\n", "lr = nan\n", "finetune.lr is nan; it must be a float"),
        ("lr = 1e-3\n", "lr = -1.0\n", "finetune.lr is -1.0; it must be above zero"),
        ("lr = 1e-3\n", "lr = 1e-9\n", "finetune.lr is 1e-09, below finetune.min_lr, 1e-06; give a smaller min_lr too"),
        ("lr = 1e-3\n", 'lr = "fast"\n', "finetune.lr is 'fast'; it must be a float"),
        ("{ cnn = 1e-3, t", "{ vit = 1e-3, t", "a key of pretrain.cass_vc.lr is 'vit'; known: cnn, transformer"),
        ("{ cnn = 1e-3, t", "{ cnn = true, t", "pretrain.cass_vc.lr.cnn is True; it must be a float"),
        ("min_lr = 2e-6", "options = { heads = 4 }", "a key of pretrain.cass.options is 'heads'; known: head_dim"),
        ("min_lr = 2e-6", "options = { head_dim = 0.5 }", "pretrain.cass.options.head_dim is 0.5; it must be a int"),
        ("epochs = 12", "options = { variance = -1 }", "options.variance is -1; it cannot be negative"),
        ("lr = 1e-3\n", 'class_weights = "some"\n', "finetune.class_weights is 'some'; known: minmax, inverse, none"),
        ("seeds = 2", "seeds = 2\nlabel_fractions = [0, 1]", "label_fractions is 0; it is a fraction in"),
        ("seeds = 2", "seeds = 2\nlabel_fractions = [1, 1.0]", "label_fractions is .*; name each once"),
        ("seeds = 2", "seeds = 2\nlabel_fractions = [true]", r"label_fractions is \[True\]; it must be a list of num"),
        ("[finetune]", "[[finetune]]", "finetune is .*; it must be a table, headed"),
        ("seeds = 2", "seeds = ", r"Invalid value \(at line 5"),
    ],
)
def test_a_wrong_file_is_one_error_that_names_the_file_and_the_key(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    assert old in DEMO
    with pytest.raises(ValueError, match=message) as caught:
        load_grid(write(tmp_path, DEMO.replace(old, new, 1)))
    assert str(caught.value).startswith(f"{tmp_path}/mine.toml: ") and "\n" not in str(caught.value)


def test_a_rate_of_a_constant_schedule_has_no_least(tmp_path: Path) -> None:
    text = SMALL.replace("[pretrain.dino]\n", "[pretrain.dino]\nmin_lr = 1e-5\n")
    with pytest.raises(ValueError, match="pretrain.dino.min_lr is 1e-05, but the rate of pretrain.dino is constant"):
        read_grid(Path(write(tmp_path, text)))


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no file .*mine.toml; give the path of a TOML file"):
        load_grid(str(tmp_path / "mine.toml"))


def test_given_weights_need_the_rows_of_frozen_features(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"weights \(mine\) make rows of frozen features; add 'frozen' to methods"):
        load_grid(write(tmp_path, MAIN)).runs([_toy()], [77], _paper(), {"mine": None})  # type: ignore[dict-item]


def test_a_dry_run_shows_it_and_a_wrong_one_ends_with_two(tmp_path: Path) -> None:
    write(tmp_path, DEMO)
    done = command("launch", "--grid", "mine.toml", "--dry-run", cwd=tmp_path)
    assert done.returncode == 3 and "python -m pipeline.shard toy --size 64" in done.stdout
    assert "techniques and label fractions" in done.stdout
    write(tmp_path, DEMO.replace("seeds", "sedes"))
    done = command("launch", "--grid", "mine.toml", "--dry-run", cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.startswith("error: mine.toml: unknown key 'sedes'; known: ")


def keys_of(value: type) -> set[str]:
    """Every key of a file and of its tables."""
    found = set()
    for name, hint in typing.get_type_hints(value).items():
        found |= keys_of(hint) if dataclasses.is_dataclass(hint) else {name}
    return found


def test_the_file_to_copy_is_a_grid_and_so_it_is_with_every_line_in_effect() -> None:
    path = ROOT / "pipeline" / "study" / "own_grid.toml"
    assert read_grid(path).methods == ("cass_vc", "supervised", "frozen")
    text = re.sub(r"^# (?=\w+ = |\[)", "", path.read_text(), flags=re.M)
    grid = toml.build(GridFile, tomllib.loads(text))
    assert grid.finetune.class_weights == "inverse" and grid.pretrain.cass_vc.images == 800
    said = set(re.findall(r"^(?:# )?(\w+) = ", path.read_text(), flags=re.M))
    assert keys_of(GridFile) <= said


def test_the_page_of_grids_names_every_key_and_its_example_is_one() -> None:
    page = (ROOT / "docs" / "grids.md").read_text()
    said = {word for code in re.findall(r"`([a-zA-Z_.]+)`", page) for word in code.split(".")}
    assert keys_of(GridFile) <= said
    (example,) = re.findall(r"```toml\n(.*?)```", page, flags=re.S)
    assert toml.build(GridFile, tomllib.loads(example)).pretrain.epochs == 10
