"""What a job's batch shell does around its step, and how it starts Python in a container. The shell is a real one."""

from __future__ import annotations

import dataclasses
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import tiny

from pipeline.jobs import gpus, preflight
from pipeline.jobs.signals import REQUEUE, STOPPED
from pipeline.jobs.slurm import batch
from pipeline.jobs.slurm.endings import Ending
from pipeline.runs import cluster
from pipeline.runs.cluster import Cluster, Slurm
from pipeline.runs.container import Container

CODE = Path("/shared/runs/.code/abc")


def site(folder: Path, *, scratch: str = "", requeues: int = 1000, python: str = "", **container: object) -> Cluster:
    """A Slurm site whose runs and shards exist, and whose weights do not."""
    slurm = Slurm(requeues=requeues, python=python, container=Container(**container))  # type: ignore[arg-type]
    out = tiny.make_cluster(folder, executor="slurm", slurm=slurm)
    for name in ("runs", "shards"):
        (folder / name).mkdir(exist_ok=True)
    return dataclasses.replace(out, scratch=scratch or out.scratch)


def shell(text: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {"PATH": f"{folder}:/usr/bin:/bin", **environment}
    return subprocess.run(["bash", "-c", text], env=env, cwd=folder, capture_output=True, text=True)


def program(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(f"#!/bin/bash\n{text}\n")
    (folder / name).chmod(0o755)


# --- Back into the queue ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "restarts", "asked"),
    [(REQUEUE, "", 3), (REQUEUE, "4", 3), (REQUEUE, "5", 0), (STOPPED, "", 0), (0, "", 0), (1, "", 0)],
)
def test_the_shell_requeues_what_asks_for_it_until_slurm_answers(tmp_path, monkeypatch, code, restarts, asked):
    program(tmp_path, "scontrol", 'echo "$@" >>asked; [ $(wc -l <asked) = 3 ]')  # it answers the third time
    monkeypatch.setattr(batch, "REQUEUE_SECONDS", 0)
    script = "\n".join([f"(exit {code})", *batch.lines_after(site(tmp_path, requeues=5))])
    ids = {"SLURM_JOB_ID": "12", "SLURM_ARRAY_JOB_ID": "10", "SLURM_ARRAY_TASK_ID": "3"}
    done = shell(script, tmp_path, **ids, **({"SLURM_RESTART_COUNT": restarts} if restarts else {}))
    calls = (tmp_path / "asked").read_text().splitlines() if asked else []
    assert calls == ["requeue 10_3"] * asked and (tmp_path / "asked").exists() == bool(asked)
    assert done.returncode == code and ("requeued job 10_3" in done.stdout) == bool(asked)


@pytest.mark.parametrize("request_", ["", "ExcNodeList=n[2-3],n7"])
def test_the_shell_changes_what_the_job_requests_before_its_next_start(tmp_path, request_):
    program(tmp_path, "scontrol", 'echo "$@" >>asked')
    program(tmp_path, "sinfo", 'printf "%s " "$@"; echo')
    found = site(tmp_path)
    ask = f'echo "${batch.NODES}"; [ -z "{request_}" ] || echo "{request_}" >"${batch.BATCH_SHELL}"'
    script = [*batch.lines_before(found, CODE, tmp_path), ask, f"(exit {REQUEUE})", *batch.lines_after(found)]
    (tmp_path / "12.request").write_text("ExcNodeList=of_an_earlier_start")
    ids = {"SLURM_JOB_ID": "12", "SLURMD_NODENAME": "n7", "SLURM_JOB_PARTITION": "main"}
    said = shell("\n".join(script), tmp_path, **ids).stdout.splitlines()
    assert said[:2] == ["-a -h -N -n n7 -o %G|%f|%N ", "-h -e -p main -o %G|%f|%N "]
    asked = ["requeue 12", *([f"update JobId=12 {request_}"] if request_ else [])]
    assert (tmp_path / "asked").read_text().splitlines() == asked


def test_the_shell_gives_a_job_up_that_slurm_never_requeues(tmp_path, monkeypatch):
    program(tmp_path, "scontrol", "echo >>asked; exit 1")
    program(tmp_path, "sleep", 'echo "$1" >>slept')
    monkeypatch.setattr(batch, "REQUEUES", 15)
    script = "\n".join([f"(exit {REQUEUE})", *batch.lines_after(site(tmp_path))])
    done = shell(script, tmp_path, SLURM_JOB_ID="12")
    assert done.returncode == REQUEUE and len((tmp_path / "asked").read_text().splitlines()) == 15
    assert "job 12 is not requeued: scontrol failed 15 times" in done.stdout and "requeued job" not in done.stdout
    slept = [int(line) for line in (tmp_path / "slept").read_text().splitlines()]
    assert slept == [5, 10, 15, 20, 25, 30, 35, 40, 45, 50, 55, 60, 60, 60]


def test_a_job_without_requeues_ends_with_its_code_at_the_time_limit(tmp_path):
    program(tmp_path, "scontrol", "echo >>asked")
    script = "\n".join([f"(exit {REQUEUE})", *batch.lines_after(site(tmp_path, requeues=0))])
    assert shell(script, tmp_path, SLURM_JOB_ID="12").returncode == REQUEUE and not (tmp_path / "asked").exists()
    assert Ending("FAILED", f"{REQUEUE}:0").words.startswith("saved and not requeued: slurm.requeues allows no")


@pytest.mark.parametrize("strict", ["set -e", "set -euo pipefail"])
def test_setup_lines_that_end_the_shell_at_an_error_do_not_hinder_the_requeue(tmp_path, strict):
    program(tmp_path, "scontrol", 'echo "$@" >>asked')
    program(tmp_path, "sinfo", "exit 1")
    found = site(tmp_path)
    for setup, asked in (((strict,), True), ((strict, "false"), False)):  # a line of its own still ends the job
        found = dataclasses.replace(found, slurm=dataclasses.replace(found.slurm, setup=setup))
        script = [*batch.lines_before(found, CODE, tmp_path), f"(exit {REQUEUE})", *batch.lines_after(found)]
        done = shell("\n".join(script), tmp_path, SLURM_JOB_ID="12")
        assert done.returncode == (REQUEUE if asked else 1) and (tmp_path / "asked").exists() == asked
        (tmp_path / "asked").unlink(missing_ok=True)


def test_the_nodes_of_all_partitions_that_a_job_may_use_are_asked_for(tmp_path):
    program(tmp_path, "sinfo", 'printf "%s " "$@"; echo')
    found = site(tmp_path)
    found = dataclasses.replace(found, slurm=dataclasses.replace(found.slurm, partition="a,b"))
    script = [*batch.lines_before(found, CODE, tmp_path), f'echo "${batch.NODES}"']
    said = shell("\n".join(script), tmp_path, SLURMD_NODENAME="n7", SLURM_JOB_PARTITION="b").stdout.splitlines()
    assert said == ["-a -h -N -n n7 -o %G|%f|%N ", "-h -e -p a,b -o %G|%f|%N "]


def test_a_node_that_slurm_does_not_name_is_not_taken_for_the_partitions_first(tmp_path, monkeypatch):
    """Its GPU would have another's name for good: the controller was busy, or the person's SINFO_PARTITION hid it."""
    program(
        tmp_path,
        "sinfo",
        '[ -z "$SINFO_PARTITION" ] || exit 1\ncase "$*" in *-N*) [ ! -e away ] || exit 1; echo "gpu:rtx8000:1|x|n7";;\n'
        '*) echo "gpu:a100:4|y|n[1-3]"; echo "gpu:rtx8000:1|x|n[4-9]";; esac',
    )
    script = "\n".join([*batch.lines_before(site(tmp_path), CODE, tmp_path), f'printf %s "${batch.NODES}"'])
    for answers, name in ((True, "gres:rtx8000"), (False, "")):
        if not answers:
            (tmp_path / "away").touch()
        said = shell(script, tmp_path, SLURMD_NODENAME="n7", SINFO_PARTITION="debug").stdout
        monkeypatch.setenv(batch.NODES, said)
        assert gpus.name_in_slurm("Quadro RTX 8000") == name
        assert gpus.request_of("gres:rtx8000", Slurm()) == "ExcNodeList=n[1-3]", "the others are all there"


def test_a_partition_of_thousands_of_kinds_of_node_leaves_room_in_the_environment(tmp_path):
    """Some sites give each node a feature of its own; no program started with all of them."""
    program(tmp_path, "sinfo", 'for i in $(seq 4000); do echo "gpu:rtx8000:1|rack$((i / 40)),node$i,epyc|n$i"; done')
    lines = batch.lines_before(site(tmp_path), CODE, tmp_path)
    done = shell("\n".join([*lines, f'/bin/echo "${batch.NODES}"']), tmp_path, SLURMD_NODENAME="n1")
    said = done.stdout.splitlines()
    assert done.returncode == 0 and done.stderr == "" and len(done.stdout) > 90_000
    assert said[:2] == ["gpu:rtx8000:1|rack0,node1,epyc|n1"] * 2 and all(line.count("|") == 2 for line in said)


def test_a_job_that_is_no_array_is_named_by_its_own_number(tmp_path):
    assert shell(f'echo "{batch.JOB}"', tmp_path, SLURM_JOB_ID="12").stdout == "12\n"


# --- Containers ------------------------------------------------------------------------------------------------------


def words(found: Cluster, folder: Path, **environment: str) -> list[str]:
    """The words that srun would get from the shell."""
    return shell(f"printf '%s\\0' {batch.python_words(found, CODE)}", folder, **environment).stdout.split("\0")[:-1]


def test_without_a_container_python_is_the_launching_one_and_keeps_its_path(tmp_path):
    assert words(site(tmp_path), tmp_path) == [sys.executable]
    lines = batch.lines_before(site(tmp_path), CODE, tmp_path)
    assert f"export PYTHONPATH={CODE}${{PYTHONPATH:+:$PYTHONPATH}}" in lines and "NOUSERSITE" not in str(lines)


def test_apptainer_binds_the_sites_paths_that_exist(tmp_path, monkeypatch):
    """Apptainer cannot be installed here: this is its command line as text."""
    monkeypatch.setattr(batch, "GPU_FLAG", "$(echo --nv)")
    found = site(tmp_path, image="/shared/cass.sif", binds=("/data/raw:/data/raw:ro",), options=("--no-home",))
    ignoring = ["bash", "-c", 'trap "" USR2 TERM; exec "$@"', "container"]
    binds = [str(tmp_path / "runs"), str(tmp_path / "shards"), "/data/raw:/data/raw:ro", str(tmp_path / "scratch")]
    expected = [*ignoring, "apptainer", "exec", "--nv"]
    expected += [word for bind in binds for word in ("--bind", bind)]
    assert words(found, tmp_path) == [*expected, "--no-home", "/shared/cass.sif", "python3"]


def test_nv_is_there_where_the_node_has_a_gpu(tmp_path):
    has_gpu = Path("/dev/nvidiactl").exists()
    assert shell(f"echo {batch.GPU_FLAG}", tmp_path).stdout == ("--nv\n" if has_gpu else "\n")


def test_enroot_is_started_by_sruns_flags_of_pyxis(tmp_path):
    found = site(
        tmp_path, scratch="$NODE_TMP/my cass", image="lab/cass:1", runtime="enroot", binds=("/raw",), python="/py"
    )
    mounts = [f"{tmp_path}/runs:{tmp_path}/runs", f"{tmp_path}/shards:{tmp_path}/shards", "/raw:/raw"]
    expected = ["--container-image=lab/cass:1", "--container-mounts=" + ",".join(mounts)]
    last = [f"--container-workdir={CODE}", "/py"]
    assert words(found, tmp_path) == [*expected, *last]
    expected[1] += ",/n/my cass:/n/my cass"
    assert words(found, tmp_path, NODE_TMP="/n") == [*expected, *last]


def test_scratch_with_variables_is_made_and_bound_where_they_are_set(tmp_path):
    found = site(tmp_path, scratch='$NODE_TMP/${ME}\'s "x"', image="i.sif")
    folder = f'{tmp_path}/node/me\'s "x"'
    known = {"NODE_TMP": f"{tmp_path}/node", "ME": "me"}
    assert folder in words(found, tmp_path, **known)
    assert not [word for word in words(found, tmp_path, NODE_TMP="/n") if 's "x"' in word]
    lines = "\n".join(batch.lines_before(found, CODE, tmp_path))
    assert shell(lines, tmp_path).returncode == 0 and not (tmp_path / "node").exists()
    done = shell(f"{lines}\necho $PYTHONPATH", tmp_path, PYTHONPATH="/of/the/node", **known)
    assert Path(folder).is_dir() and done.stdout == f"{CODE}\n"


@pytest.mark.parametrize(
    "scratch", ["/s/$(touch F)$NODE_TMP", "/s/`touch F`", '/s/"$1${X:-y}$é', "/s/$", "$NODE_TMP/\\$X"]
)
def test_nothing_but_variables_has_a_meaning_in_scratch(tmp_path, scratch):
    folder = scratch.replace("$NODE_TMP", "/n")
    assert shell(f"printf %s {batch._word(scratch)}", tmp_path, NODE_TMP="/n", X="x").stdout == folder.replace(
        "$X", "x"
    )
    whole = batch._if_set(scratch, f"printf %s {batch._word(scratch)}")
    assert shell(whole, tmp_path, NODE_TMP="/n", X="x").stdout == folder.replace("$X", "x")
    assert not (tmp_path / "F").exists()


def test_any_command_line_is_the_shells_and_its_image_one_word(tmp_path):
    found = site(tmp_path, runtime="bwrap --ro-bind {image} / --bind $D $D --", image="/a b", options=("x y",))
    expected = ["bwrap", "--ro-bind", "/a b", "/", "--bind", "/d", "/d", "--", "x y", "python3"]
    assert words(found, tmp_path, D="/d")[4:] == expected


def test_a_runtime_lives_through_slurms_signals_and_a_job_inside_notes_them(tmp_path):
    """Python inside starts with the signals ignored; `Stop` notes them all the same."""
    code = (
        "import os, signal, time\n"
        "from pipeline.jobs.signals import Stop\n"
        "assert signal.getsignal(signal.SIGTERM) == signal.getsignal(signal.SIGUSR2) == signal.SIG_IGN\n"
        "with Stop() as stop:\n"
        "    os.killpg(0, signal.SIGUSR2)\n"
        "    time.sleep(0.2)\n"
        "    print('noted', stop.requeues)\n"
    )
    runtime = "sh -c '\"$@\"; echo the runtime lives' runtime"  # it waits for its command, as bubblewrap does
    command = f"{batch.UNSIGNALLED} {runtime} {shlex.quote(sys.executable)} -c {shlex.quote(code)}"
    done = subprocess.run(
        ["setsid", "bash", "-c", f"exec {command}"], env=os.environ, cwd=Path.cwd(), capture_output=True, text=True
    )
    assert done.stdout == "noted True\nthe runtime lives\n", done.stderr


@pytest.mark.parametrize(
    ("container", "said"),
    [
        ({"binds": ["/raw"]}, "slurm.container has no image"),
        ({"image": "i.sif", "binds": ["raw"]}, "write /path, /path:/inside or /path:/inside:ro"),
        ({"runtime": "  "}, "runtime is empty"),
        ({"runtime": "bwrap 'x"}, "No closing quotation"),
        ({"runtime": "bwrap /", "binds": ["/raw"]}, "write them into the command line"),
        ({"runtime": "bwrap /", "image": "i"}, "where the command line holds {image}, and only there"),
        ({"runtime": "bwrap {image}"}, "where the command line holds {image}, and only there"),
        ({"images": "i"}, "unknown key 'slurm.container.images'; known: slurm.container.image, "),
    ],
)
def test_a_wrong_container_is_refused_with_the_right_way(container, said):
    with pytest.raises(ValueError) as caught:
        cluster.from_json({"slurm": {"container": container}})
    assert said in str(caught.value)


def test_a_container_comes_back_from_its_json_and_none_leaves_no_key(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = cluster.from_json({"slurm": {"container": {"image": "cass.sif"}}})
    assert found.slurm.container.image == str(tmp_path / "cass.sif") and found.slurm.container.used
    assert cluster.from_json(cluster.to_json(found)) == found
    assert "container" not in cluster.to_json(cluster.from_json({}))["slurm"]
    for image in ("docker://lab/cass:1", "lab/cass:1"):
        runtime = "apptainer" if "//" in image else "enroot"
        named = cluster.from_json({"slurm": {"container": {"image": image, "runtime": runtime}}})
        assert named.slurm.container.image == image and named.slurm.container.file is None


def test_an_image_that_is_not_there_is_a_problem_of_the_site(tmp_path, monkeypatch):
    monkeypatch.setattr(preflight, "slurm_problems", lambda slurm: ([], []))
    found = site(tmp_path, image=str(tmp_path / "cass.sif"))
    found = dataclasses.replace(found, slurm=dataclasses.replace(found.slurm, shared_disks=True))
    (said,) = preflight.problems(found)
    assert "cass.sif: there is no such file; build it from slurm/image.def" in said
    (tmp_path / "cass.sif").touch()
    assert preflight.problems(found) == []
