"""A site's file is checked whole before anything runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.runs import cluster
from pipeline.runs.cluster import Cluster, load_cluster


def load(folder: Path, text: str) -> Cluster:
    (folder / "site.toml").write_text(text)
    return load_cluster(str(folder / "site.toml"))


def test_the_local_file_of_the_project_holds_and_says_the_defaults() -> None:
    local, bare = load_cluster("local"), cluster.from_json({})
    assert local == bare


def test_an_empty_file_means_the_defaults(tmp_path: Path) -> None:
    found = load(tmp_path, "")
    assert (found.executor, found.device, found.precision, found.threads) == ("local", "auto", "auto", 1)


def test_relative_paths_start_at_the_current_folder_and_end_up_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    found = load(tmp_path, 'shards = "big/shards"\nruns = "~/runs"\nscratch = "/scratch/me"\n')
    assert found.shards == str(tmp_path / "here" / "big" / "shards")
    assert found.runs == str(tmp_path / "home" / "runs")
    assert found.scratch == "/scratch/me"
    assert found.weights == str(tmp_path / "here" / "weights")


def test_an_unknown_key_is_an_error_that_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"site\.toml: unknown key 'thread'; known: .*threads, jobs") as caught:
        load(tmp_path, "thread = 4\n")
    assert "checkpoint_minutes" in str(caught.value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('threads = "4"', "threads is '4'; it must be a int"),
        ("threads = true", "threads is True; it must be a int"),
        ("threads = 1.5", r"threads is 1\.5; it must be a int"),
        ("shards = 7", "shards is 7; it must be a str"),
        ('checkpoint_minutes = "soon"', "checkpoint_minutes is 'soon'; it must be a float"),
        ("threads = 0", "threads is 0; give 1 or more"),
        ("jobs = -1", "jobs is -1; give 1 or more, or 0"),
        ("checkpoint_minutes = -1", r"checkpoint_minutes is -1; give minutes"),
        ('device = "tpu"', "device is 'tpu'; known: auto, cpu, cuda"),
        ('precision = "fp8"', "precision is 'fp8'; known: auto, float32, float16, bfloat16"),
        ('gpu_model = "H900"', "gpu_model is 'H900'; known: .*RTX8000"),
        ('executor = "pbs"', "executor is 'pbs'; known: local, slurm"),
        ("threads = ", "site.toml: "),
    ],
)
def test_a_wrong_value_is_an_error_that_names_the_file_the_key_and_the_right_values(
    tmp_path: Path, line: str, message: str
) -> None:
    with pytest.raises(ValueError, match=r"site\.toml: ") as caught:
        load(tmp_path, line)
    assert caught.match(message)


def test_whole_minutes_are_minutes_too(tmp_path: Path) -> None:
    assert load(tmp_path, "checkpoint_minutes = 5\n").checkpoint_minutes == 5


def test_a_missing_file_is_an_error_that_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"there is no cluster file .*; known: .*local.*ends in \.toml"):
        load_cluster("locl")


def test_a_cluster_comes_back_from_its_json(tmp_path: Path) -> None:
    found = load(tmp_path, "threads = 3\njobs = 2\n")
    assert cluster.from_json(cluster.to_json(found)) == found


@pytest.mark.parametrize("flag", ["comment=project42", "job_name=mine", "signal=USR1@60"])
def test_flags_of_sbatch_that_the_pipeline_sets_are_refused(flag):
    with pytest.raises(ValueError, match="which the pipeline sets itself"):
        cluster.from_json({"slurm": {"sbatch": [flag]}})


def test_both_names_of_one_key_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="card and gpu_model are one key; leave card out"):
        load(tmp_path, 'card = "RTX8000"\ngpu_model = ""\n')


def test_the_old_name_of_a_key_is_read_in_files_and_in_json_which_keeps_it(tmp_path: Path) -> None:
    found = load(tmp_path, 'card = "RTX8000"\n')
    assert found.gpu_model == "RTX8000"
    stored = cluster.to_json(found)
    assert "gpu_model" not in stored and stored["card"] == "RTX8000"  # jobs of earlier code that still run read it
    new = {"gpu_model" if key == "card" else key: value for key, value in stored.items()}
    assert cluster.from_json(new) == found


def test_job_json_has_the_keys_of_earlier_code_while_the_later_ones_have_their_defaults() -> None:
    """Those of revision fe24a17, which refuses any other; a new key belongs into `LATER`."""
    stored = cluster.to_json(Cluster())
    keys = "executor shards runs scratch scratch_gb scratch_in_ram weights device card precision threads jobs "
    keys += "trials_per_gpu ray checkpoint_minutes keep_state slurm"
    slurm = "partition account qos constraint gres cpus memory_gb hours signal_seconds requeues parallelism max_jobs "
    slurm += "accounting shared_disks python setup srun sbatch"
    assert list(stored) == keys.split() and list(stored["slurm"]) == slurm.split()
    assert cluster.to_json(Cluster(cuda_graphs=True))["cuda_graphs"] is True


@pytest.mark.parametrize("scratch", ["$HOME/x/$(touch F)", "/x/`touch F`", "$((1 + 1))"])
def test_scratch_with_a_command_is_refused(tmp_path: Path, scratch: str) -> None:
    with pytest.raises(ValueError, match=r"no command \(.*\) may be in it, but a variable: set one in \[slurm\] setup"):
        load(tmp_path, f"scratch = '{scratch}'")


@pytest.mark.parametrize("scratch", ["${SLURM_TMPDIR:-/tmp}/cass", "/local/${USER%%@*}", "$TMPDIR/${1}", "${"])
def test_scratch_with_more_than_a_variables_name_is_refused(tmp_path: Path, scratch: str) -> None:
    """Taken for text it was a folder of that name on the disk that all nodes share."""
    with pytest.raises(ValueError, match=r"only \$NAME and \$\{NAME\} are resolved there.*\[slurm\] setup"):
        load(tmp_path, f"scratch = '{scratch}'")
    with pytest.raises(ValueError, match=r"runs is .*only scratch may hold variables"):
        load(tmp_path, f"runs = '{scratch}'")
    assert load(tmp_path, "scratch = '/a$/${X}$'").scratch == "/a$/${X}$"


def test_scratch_may_hold_variables_which_each_job_resolves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_TMPDIR", raising=False)
    found = load(tmp_path, 'scratch = "$SLURM_TMPDIR/cass-${USER_OF_NODE}"')
    assert found.scratch == "$SLURM_TMPDIR/cass-${USER_OF_NODE}", "the node's environment counts, not this one"
    with pytest.raises(ValueError, match=r"SLURM_TMPDIR is not set on .*; set it in the job"):
        _ = found.scratch_folder
    monkeypatch.setenv("SLURM_TMPDIR", "/local/7")
    monkeypatch.setenv("USER_OF_NODE", "me")
    assert cluster.from_json(cluster.to_json(found)).scratch_folder == Path("/local/7/cass-me")
    monkeypatch.setenv("SLURM_TMPDIR", "local")
    with pytest.raises(ValueError, match="must begin with /"):
        _ = found.scratch_folder
    with pytest.raises(ValueError, match=r"runs is .*only scratch may hold variables"):
        load(tmp_path, 'runs = "$HOME/runs"')
