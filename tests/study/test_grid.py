"""A grid is found by name or in a user's own file; a file of an earlier version is told the new names."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from infos import dataset_infos

from pipeline.study import paper
from pipeline.study.experiments import EXPERIMENTS
from pipeline.study.grid import load_grid
from pipeline.study.names import EXPERIMENT_GRIDS, known_grids
from pipeline.study.renames import RENAMED

NAMES = (
    "augmentation batch_size cass_vc cnn cnn_optimizer controls demo dino_fb epochs frozen initialisation main paper "
    "small toy transformer two_cnns two_transformers"
).split()
CONSTANTS = 'DATASETS = ["toy"]\nSEEDS = 2\nIMAGE_SIZE = 64\n'
ENTRIES = CONSTANTS + (
    "from pipeline.study.experiments import entries_of\n"
    "def entries(datasets, seeds, preset):\n"
    "    return entries_of('batch_size')(datasets, seeds, preset)\n"
)
SPECS = CONSTANTS + (
    "from pipeline.study import paper, recipes\n"
    "def grid(datasets, seeds, preset):\n"
    "    ref = datasets[0].ref\n"
    "    cass = recipes.cass(ref, preset=preset, seed=seeds[0])\n"
    "    tuned = recipes.finetune(ref, paper.RESNET50, cass, preset=preset, seed=seeds[0])\n"
    "    return [cass, tuned]\n"
)


def write(folder: Path, text: str) -> str:
    """The path of a grid file with this text."""
    (folder / "mine.py").write_text(text)
    return str(folder / "mine.py")


def test_the_names_of_grids_stay() -> None:
    assert known_grids() == sorted(NAMES)
    assert all(load_grid(name).name == name for name in NAMES)


def test_listing_the_grids_imports_neither_plugins_nor_anything_heavy() -> None:
    code = (
        "import sys\n"
        "from pipeline.study.grid import known_grids\n"
        "assert known_grids()\n"
        "print([name for name in sys.modules if name.startswith('pipeline.study.grids.')])\n"
        "print([name for name in ('torch', 'numpy', 'PIL', 'pyarrow') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n[]\n"


def test_an_experiment_of_the_paper_is_a_grid_with_the_one_that_belongs_to_it() -> None:
    grid = load_grid("cnn")
    assert (grid.datasets, grid.seeds, grid.image_size) == (("autoimmune", "brain_mri"), 5, 384)
    found = grid.entries(dataset_infos(grid.datasets), [77], paper.preset("paper"))
    assert {entry.experiment for entry in found} == {"cnn", "cnn_supervised"}


@pytest.mark.parametrize("name", ["mine", "cnn_supervised", "plain", "__init__", ""])
def test_an_unknown_name_is_an_error_that_names_the_known_ones(name: str) -> None:
    with pytest.raises(ValueError, match=f"there is no {name!r} among grids; known: augmentation, batch_size, "):
        load_grid(name)


def test_a_file_of_ones_own_gives_table_entries(tmp_path: Path) -> None:
    grid = load_grid(write(tmp_path, ENTRIES))
    assert (grid.name, grid.datasets, grid.seeds, grid.image_size) == ("mine", ("toy",), 2, 64)
    entries, pretrains = grid.runs(dataset_infos(["toy"]), [77, 78], paper.preset("paper"))
    assert len(entries) == 3 * 2 * 2 and not pretrains
    assert {entry.experiment for entry in entries} == {"batch_size"}


def test_a_file_of_ones_own_may_list_specs(tmp_path: Path) -> None:
    grid = load_grid(write(tmp_path, SPECS))
    (entry,), (pretrain,) = grid.runs(dataset_infos(["toy"]), [77], paper.preset("paper"))
    assert entry.spec.pretrain == pretrain
    assert (entry.experiment, entry.row, entry.column) == ("plain", ("CASS", "resnet50 (cnn)"), "100%")


def test_a_path_without_a_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no file"):
        load_grid(str(tmp_path / "mine.py"))


def test_the_names_of_the_experiments_grids_are_those_of_the_experiments() -> None:
    assert set(EXPERIMENT_GRIDS) == {experiment.grid or name for name, experiment in EXPERIMENTS.items()}


@pytest.mark.parametrize(
    ("text", "lacking"),
    [
        ("", r"DATASETS, SEEDS, IMAGE_SIZE, entries\(datasets, seeds, preset\)"),
        (CONSTANTS, r"entries\(datasets, seeds, preset\)"),
        (SPECS.replace("SEEDS", "COUNT"), "SEEDS"),
    ],
)
def test_a_file_that_lacks_something_is_told_what(tmp_path: Path, text: str, lacking: str) -> None:
    with pytest.raises(ValueError, match=f"mine.py lacks {lacking}; pipeline/study/grids/small.py is one to copy"):
        load_grid(write(tmp_path, text))


def test_a_grid_that_yields_its_runs_has_all_of_them(tmp_path: Path) -> None:
    listed = load_grid(write(tmp_path, SPECS)).runs(dataset_infos(["toy"]), [77], paper.preset("paper"))
    (tmp_path / "lazy").mkdir()
    lazy = SPECS.replace("def grid(", "def listed(") + "\n\ndef grid(*given):\n    yield from listed(*given)\n"
    yielded = load_grid(write(tmp_path / "lazy", lazy)).runs(dataset_infos(["toy"]), [77], paper.preset("paper"))
    assert yielded == listed and any(yielded)


@pytest.mark.parametrize("more", ["", "\n\ndef grid(datasets, seeds, preset):\n    return []\n"])
def test_a_file_with_the_function_of_an_earlier_version_is_told_its_new_name(tmp_path: Path, more: str) -> None:
    path = write(tmp_path, ENTRIES.replace("def entries(", "def places(") + more)
    with pytest.raises(ValueError) as caught:
        load_grid(path)
    assert str(caught.value) == (
        f"{path} defines places(datasets, seeds, preset), which is now entries(datasets, seeds, preset) of values "
        "pipeline.study.setting.TableEntry; docs/renames.md lists the names that changed"
    )


@pytest.mark.parametrize(
    ("line", "old", "new"),
    [
        ("from pipeline import paper", "pipeline.paper", "now pipeline.study.paper"),
        ("import pipeline.paper", "pipeline.paper", "now pipeline.study.paper"),
        ("from pipeline.paper import Backbone", "pipeline.paper", "now pipeline.study.paper"),
        ("from pipeline import experiments, paper", "pipeline.experiments", "now pipeline.study.experiments"),
        ("from pipeline.experiments import Place", "pipeline.experiments", "now pipeline.study.experiments"),
        ("from pipeline.spec import Optim", "pipeline.spec", "now pipeline.runs.spec"),
        ("from pipeline.grids import small", "pipeline.grids", "now pipeline.study.grids"),
        ("from pipeline.study.paper import cass", "pipeline.study.paper.cass", "now pipeline.study.recipes.cass"),
        (
            "from pipeline.study import paper\nCard = paper.Card",
            "pipeline.study.paper.Card",
            "now pipeline.study.setting",
        ),
        ("from pipeline.elsewhere import thing", "pipeline.elsewhere", "not exist"),
        ("from pipeline.study import elsewhere", "pipeline.study.elsewhere", "not exist"),
    ],
)
def test_a_file_that_imports_what_moved_is_told_its_new_name(tmp_path: Path, line: str, old: str, new: str) -> None:
    path = write(tmp_path, f"{line}\n{SPECS}")
    with pytest.raises(ValueError) as caught:
        load_grid(path)
    told = str(caught.value)
    assert told.startswith(f"{path} uses {old}, which ") and new in told
    assert told.endswith("; docs/renames.md lists the names that changed")


def test_a_function_that_uses_what_moved_is_told_its_new_name(tmp_path: Path) -> None:
    grid = load_grid(write(tmp_path, SPECS.replace("recipes.cass(", "paper.cass(")))
    with pytest.raises(ValueError, match="uses pipeline.study.paper.cass, which is now pipeline.study.recipes.cass"):
        grid.runs(dataset_infos(["toy"]), [77], paper.preset("paper"))


def test_other_errors_of_a_file_name_its_line(tmp_path: Path) -> None:
    path = write(tmp_path, f"import no_such_library\n{SPECS}")
    with pytest.raises(ValueError, match=r"mine\.py, line 1: ModuleNotFoundError: .*no_such_library"):
        load_grid(path)
    grid = load_grid(write(tmp_path, SPECS.replace("datasets[0].ref", "datasets[0].no_such_field")))
    with pytest.raises(ValueError, match=r"mine\.py, line 6: AttributeError: .*no_such_field"):
        grid.runs(dataset_infos(["toy"]), [77], paper.preset("paper"))
    with pytest.raises(ValueError, match=r"mine\.py: SyntaxError: .*line 1"):
        load_grid(write(tmp_path, "def\n"))


def test_a_command_ends_with_the_message_and_without_a_traceback(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pipeline.launch", "--dry-run", "--grid"]
    path = write(tmp_path, f"from pipeline import paper\n{SPECS}")
    done = subprocess.run([*command, path], capture_output=True, text=True)
    assert done.returncode == 2
    assert "pipeline.paper, which is now pipeline.study.paper; docs/renames.md" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_a_renamed_thing_is_where_it_is_said_to_be(old: str, new: str) -> None:
    def exists(dotted: str) -> bool:
        try:
            __import__(dotted)
        except ImportError:
            module, _, name = dotted.rpartition(".")
            try:
                return hasattr(__import__(module, fromlist=["x"]), name)
            except ImportError:
                return False
        return True

    assert exists(new.split(" ")[0]) and not exists(old)
