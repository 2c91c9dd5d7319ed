"""Workers answer in order, and an item that kills its process costs no other item."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest
from crash import process, tenfold, tenfold_but_3_and_90, tenfold_but_40

from pipeline.data import images
from pipeline.data.workers import Workers


def children(pid: int) -> set[int]:
    return {int(child) for path in Path(f"/proc/{pid}/task").glob("*/children") for child in path.read_text().split()}


@pytest.mark.parametrize("threads", [False, True])
@pytest.mark.parametrize("workers", [1, 3])
def test_answers_come_in_the_order_of_the_items(workers: int, threads: bool) -> None:
    with Workers(workers, threads=threads) as pool:
        assert list(pool.map(tenfold, range(100))) == [item * 10 for item in range(100)]
        assert list(pool.map(tenfold, [])) == []


def test_an_image_that_crashes_its_decoder_costs_no_other_image() -> None:
    with Workers(2) as pool:
        answers = list(pool.map(tenfold_but_3_and_90, range(100)))
    crashed = [item for item, answer in enumerate(answers) if isinstance(answer, images.BadImage)]
    assert crashed == [3, 90]
    assert str(answers[3]) == "crashes the decoder"
    assert all(answers[item] == item * 10 for item in range(100) if item not in crashed)


def test_a_crash_ahead_of_a_slow_writer_costs_no_other_image() -> None:
    with Workers(1) as pool:
        answers = pool.map(tenfold_but_40, range(100))
        found = [next(answers)]
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:  # until the crash is known while earlier answers still wait
            try:
                pool.pool.submit(tenfold, 1).result()
            except BrokenProcessPool:
                break
        found += answers
    assert [item for item, answer in enumerate(found) if answer != item * 10] == [40]


def test_slurms_signal_to_every_process_of_a_job_ends_no_worker() -> None:
    with Workers(2) as pool:
        answers = pool.map(process, range(400))
        found = {next(answers)}
        (server,) = (pid for pid in children(os.getpid()) if b"forkserver" in Path(f"/proc/{pid}/cmdline").read_bytes())
        workers = children(server)
        for pid in (server, *workers):
            os.kill(pid, signal.SIGUSR2)
        found |= set(answers)
    assert found == workers  # none of them another one's successor
    assert len(workers) == 2


def test_workers_import_this_package_even_if_the_current_folder_holds_another_of_its_name(tmp_path: Path) -> None:
    other, script = tmp_path / "elsewhere", tmp_path / "script.py"
    (other / "pipeline" / "data" / "shards").mkdir(parents=True)
    for name in ("__init__.py", "data/__init__.py", "data/shards/__init__.py", "data/shards/transcode.py"):
        (other / "pipeline" / name).touch()
    script.write_text(
        "from pipeline.data.workers import Workers\n"
        "if __name__ == '__main__':\n"
        "    with Workers(1) as pool:\n"
        "        print(list(pool.map(len, ['abc'])))\n"
    )
    done = subprocess.run([sys.executable, script], cwd=other, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "[3]", done.stdout + done.stderr


@pytest.mark.parametrize("threads", [False, True])
def test_few_items_are_read_ahead(threads: bool) -> None:
    taken = 0

    def source() -> Iterator[int]:
        nonlocal taken
        for item in range(10_000):
            taken += 1
            yield item

    with Workers(1, threads=threads) as pool:
        next(pool.map(tenfold, source()))
        assert taken < 200
