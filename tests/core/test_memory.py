"""A job's memory is the least that the machine, its cgroups and Slurm grant."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from repository import ROOT

from pipeline.core import memory

PHYSICAL = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def machine(root: Path, groups: str, limits: dict[str, str]) -> Path:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(groups)
    for name, text in limits.items():
        (root / "sys/fs/cgroup" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "sys/fs/cgroup" / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("groups", "limits", "expected"),
    [
        ("0::/job/step\n", {"job/step/memory.max": "max\n", "job/memory.max": "5000000\n"}, 5_000_000),
        ("0::/job/step\n", {"job/step/memory.max": "3000000\n", "job/memory.max": "5000000\n"}, 3_000_000),
        ("4:memory:/job\n0::/\n", {"memory/job/memory.limit_in_bytes": "7000000\n"}, 7_000_000),
        ("4:cpu,memory:/gone\n", {"memory/memory.limit_in_bytes": "8000000\n"}, 8_000_000),
        ("4:memory:/job\n", {"memory/job/memory.limit_in_bytes": "9223372036854771712\n"}, PHYSICAL),
        ("4:cpu:/job\n", {"cpu/job/memory.limit_in_bytes": "7\n"}, PHYSICAL),
    ],
)
def test_cgroups_of_both_versions_and_their_parents_count(
    groups: str, limits: dict[str, str], expected: int, tmp_path: Path
) -> None:
    assert memory.job_bytes({}, machine(tmp_path, groups, limits)) == expected


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"SLURM_JOB_ID": "7", "SLURM_MEM_PER_NODE": "512"}, 512 << 20),
        ({"SLURM_JOB_ID": "7", "SLURM_MEM_PER_CPU": "100", "SLURM_CPUS_ON_NODE": "4"}, 400 << 20),
        ({"SLURM_JOB_ID": "7", "SLURM_MEM_PER_NODE": "0"}, PHYSICAL),
        ({"SLURM_MEM_PER_NODE": "512"}, PHYSICAL),
        ({}, PHYSICAL),
    ],
)
def test_what_slurm_granted_counts_within_a_job(environment: dict[str, str], expected: int, tmp_path: Path) -> None:
    assert memory.job_bytes(environment, tmp_path) == expected


def in_a_process(code: str) -> str:
    code = f"import resource; from pipeline.core import memory; {code}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    return done.stdout.strip() or done.stderr.strip().splitlines()[-1]


def test_a_share_is_a_part_of_the_job_and_no_more_than_a_process_may_have() -> None:
    assert memory.share_of_worker(4) == int(memory.USABLE * memory.job_bytes()) // 4
    limited = in_a_process("resource.setrlimit(resource.RLIMIT_AS, (10**9, 10**9)); print(memory.share_of_worker(1))")
    assert limited == str(int(0.8 * 10**9))


def test_a_process_gets_no_more_than_its_limit() -> None:
    assert in_a_process("memory.limit_growth(10**8); print(len(bytearray(5 * 10**7)))") == "50000000"
    assert in_a_process("memory.limit_growth(10**8); bytearray(3 * 10**8)") == "MemoryError"
