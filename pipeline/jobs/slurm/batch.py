"""What a job's batch shell does on the node: before its step, to start Python there or in a container, and after it.

Everything that needs Slurm's tools happens in this shell, so a container has none of them. A step that saved because
the time limit is near leaves with `REQUEUE`, and the shell puts the job back into the queue.
"""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

from pipeline.jobs.gpus import NODES
from pipeline.jobs.signals import BATCH_SHELL, REQUEUE
from pipeline.runs.cluster import VARIABLE, Cluster
from pipeline.runs.container import EXEC, PYXIS

JOB = "${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}"
REQUEUES = 60  # attempts while slurmctld does not answer: it may be down for almost an hour
REQUEUE_SECONDS = 5  # from the first attempt to the second; each later pause is so much longer, up to a minute
NODES_BYTES = 100_000  # of the list of nodes; Linux takes 131,072 of a variable
GPU_FLAG = "$([ -e /dev/nvidiactl ] && echo --nv)"  # asked on the node
UNSIGNALLED = """bash -c 'trap "" USR2 TERM; exec "$@"' container"""
"""Starts a runtime that ignores the signals which Slurm sends to all processes of a step; Python inside notes them."""


def lines_before(cluster: Cluster, code: Path, folder: Path) -> list[str]:
    """What the shell executes before the step, at every start of the job; what the step asks of it is in `folder`."""
    inside = cluster.slurm.container.used
    inherited = "" if inside else "${PYTHONPATH:+:$PYTHONPATH}"  # the node's packages are not those of an image
    return [
        *cluster.slurm.setup,
        "set +eu +o pipefail  # of the lines above, which may end the job; no later line does before its requeue",
        f"export PYTHONPATH={shlex.quote(str(code))}{inherited}",
        *(["export PYTHONNOUSERSITE=1"] if inside else []),
        "export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK  # srun does not inherit it from 22.05 on",
        f'export {BATCH_SHELL}={shlex.quote(str(folder))}/"{JOB}.request"',
        f'rm -f "${BATCH_SHELL}"',
        f'export {NODES}="$({_node_lines(cluster.slurm.partition)})"',
        *([_if_set(cluster.scratch, f"mkdir -p {_word(cluster.scratch)}")] if inside else []),
    ]


def lines_after(cluster: Cluster) -> list[str]:
    """What the shell executes after the step."""
    return [
        "code=$?",
        f'if [ "$code" = {REQUEUE} ] && [ "${{SLURM_RESTART_COUNT:-0}}" -lt {cluster.slurm.requeues} ]; then',
        f'    job="{JOB}"',
        '    trap "" TERM  # which the requeue sends',
        "    attempt=1",
        '    until scontrol requeue "$job"; do',
        f'        if [ "$attempt" = {REQUEUES} ]; then',
        f'            echo "job $job is not requeued: scontrol failed {REQUEUES} times; launch sends its runs again"',
        '            exit "$code"',
        "        fi",
        f"        sleep $((attempt * {REQUEUE_SECONDS} < 60 ? attempt * {REQUEUE_SECONDS} : 60))",
        "        attempt=$((attempt + 1))",
        "    done",
        '    echo "requeued job $job"',
        f'    [ ! -s "${BATCH_SHELL}" ] || scontrol update "JobId=$job" $(cat "${BATCH_SHELL}")',
        "fi",
        'exit "$code"',
    ]


def python_words(cluster: Cluster, code: Path) -> str:
    """What follows srun's own arguments and starts Python, as words of the shell."""
    slurm = cluster.slurm
    container = slurm.container
    if not container.used:
        return shlex.quote(slurm.python or sys.executable)
    image, options = shlex.quote(container.image), [shlex.quote(option) for option in container.options]
    folders = [path for path in dict.fromkeys((cluster.runs, cluster.shards, cluster.weights)) if Path(path).exists()]
    scratch = _word(cluster.scratch)
    if container.runtime in EXEC:
        binds = [f"--bind {shlex.quote(bind)}" for bind in (*folders, *container.binds)]
        binds.append(_if_set(cluster.scratch, f"--bind {scratch}"))
        words = [UNSIGNALLED, container.runtime, "exec", GPU_FLAG, *binds, *options, image]
    elif container.runtime == PYXIS:
        mounts = [f"{path}:{path}" for path in folders]
        mounts += [bind if ":" in bind else f"{bind}:{bind}" for bind in container.binds]
        mounted = ",".join(map(shlex.quote, mounts)) + _if_set(cluster.scratch, f",{scratch}:{scratch}")
        words = [f"--container-image={image}", f"--container-mounts={mounted}"]
        words += [f"--container-workdir={shlex.quote(str(code))}", *options]
    else:
        words = [UNSIGNALLED, container.runtime.replace("{image}", image), *options]
    return " ".join([*words, shlex.quote(slurm.python or "python3")])


def _node_lines(partitions: str) -> str:
    """What asks for the kinds of this node and of the partitions' nodes, for jobs/gpus.

    The first line is this node's, empty where sinfo does not answer. Of nodes with features of their own, a line each,
    there may be more than the environment takes: as many as fit.
    """
    wanted = shlex.quote(partitions) if partitions else '"$SLURM_JOB_PARTITION"'
    return (
        "unset SINFO_PARTITION; size=0; "
        'echo "$(timeout 20 sinfo -a -h -N -n "$SLURMD_NODENAME" -o "%G|%f|%N" | head -n 1)"; '
        f'timeout 20 sinfo -h -e -p {wanted} -o "%G|%f|%N" | while IFS= read -r line; do '
        f'[ $((size += ${{#line}} + 1)) -gt {NODES_BYTES} ] || printf "%s\\n" "$line"; done'
    )


def _word(path: str) -> str:
    """A path as a word of the shell, in which its variables have their values and nothing else has a meaning."""
    out, end = "", 0
    for found in VARIABLE.finditer(path):
        out += _plain(path[end : found.start()]) + f"${{{found[1] or found[2]}}}"
        end = found.end()
    return f'"{out}{_plain(path[end:])}"'


def _plain(text: str) -> str:
    """Text within double quotes of the shell."""
    return re.sub(r'(["\\`$])', r"\\\1", text)


def _if_set(path: str, words: str) -> str:
    """Words of the shell that are none where a variable of the path is not set: the run itself then says which."""
    for found in VARIABLE.finditer(path):
        words = f"${{{found[1] or found[2]}:+{words}}}"
    return words
