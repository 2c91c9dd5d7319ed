"""Workers answer in order, and an item that kills its process costs no other item."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from crash import (
    dies_at_birth,
    endless_at_7,
    killed_at_5,
    process,
    slowly,
    tenfold,
    tenfold_but_3_and_90,
    tenfold_but_40,
)
from repository import ROOT

from pipeline.data import images, processes
from pipeline.data.workers import MAX_KILLS, MOST, Workers, WorkersLost


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
    assert str(answers[3]) == "crashes the decoder (SIGSEGV)"
    assert all(answers[item] == item * 10 for item in range(100) if item not in crashed)


def test_a_crash_ahead_of_a_slow_writer_costs_no_other_image() -> None:
    with Workers(1) as pool:
        answers = pool.map(tenfold_but_40, range(100))
        found = [next(answers)]
        time.sleep(0.2)  # the crash happens while earlier answers still wait
        found += answers
    assert [item for item, answer in enumerate(found) if answer != item * 10] == [40]
    assert str(found[40]) == "crashes the decoder (exit code 3)"


def test_an_image_that_takes_too_long_is_given_up_and_costs_no_other() -> None:
    with Workers(2, seconds=0.3) as pool:
        answers = list(pool.map(endless_at_7, range(40)))
    assert [item for item, answer in enumerate(answers) if answer != item * 10] == [7]
    assert pool.kills == 0
    assert str(answers[7]) == "takes more than 0.3 s of processor time; convert it or cut it into tiles"


def test_an_image_whose_worker_is_killed_each_time_is_blamed_if_an_idle_worker_lives() -> None:
    """As by the system, for lack of memory."""
    with Workers(1) as pool:
        answers = list(pool.map(killed_at_5, range(20)))
        assert [item for item, answer in enumerate(answers) if answer != item * 10] == [5]
        assert str(answers[5]) == "crashes the decoder (SIGKILL)"
        assert pool.kills == 0


def kill_workers(times: int, pause: float, is_over: threading.Event) -> None:
    """Kill all workers of this process so many times."""
    for _ in range(times):
        if is_over.wait(pause):
            return
        for pid in children(os.getpid()):
            if b"forkserver" in Path(f"/proc/{pid}/cmdline").read_bytes():
                for worker in children(pid):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(worker, signal.SIGKILL)


def test_a_few_kills_from_outside_cost_nothing() -> None:
    with Workers(2) as pool:
        answers = pool.map(slowly, range(200))
        found = [next(answers)]
        killer = threading.Thread(target=kill_workers, args=(2, 0.3, threading.Event()))
        killer.start()
        found += answers
        killer.join()
    assert found == [item * 10 for item in range(200)]
    assert 1 <= pool.kills <= 4


def test_many_kills_from_outside_end_the_job_and_blame_no_image() -> None:
    found: list[object] = []
    is_over = threading.Event()
    killer = threading.Thread(target=kill_workers, args=(400, 0.03, is_over))
    with pytest.raises(WorkersLost, match="killed (9|1.) times .*SIGKILL.* no image is to blame; run the same command"):
        with Workers(2) as pool:
            answers = pool.map(slowly, range(100_000))
            found.append(next(answers))
            killer.start()
            found += answers
    is_over.set()
    killer.join()
    assert MAX_KILLS * 2 == 8
    assert found == [item * 10 for item in range(len(found))]


def test_a_server_that_is_killed_is_started_again() -> None:
    with Workers(1) as pool:
        answers = pool.map(slowly, range(200))
        found = [next(answers)]
        for pid in children(os.getpid()):
            if b"forkserver" in Path(f"/proc/{pid}/cmdline").read_bytes():
                for victim in [pid, *children(pid)]:
                    os.kill(victim, signal.SIGKILL)
        found += answers
    assert found == [item * 10 for item in range(200)]


def test_what_the_function_raises_is_raised_with_its_traceback() -> None:
    with Workers(1) as pool, pytest.raises(TypeError, match="NoneType") as caught:
        list(pool.map(tenfold, [1, 2, None]))  # type: ignore[list-item]
    assert "in tenfold" in str(caught.value.__cause__)


def test_a_script_without_a_guard_ends_at_once_with_the_cause(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from pipeline.data.workers import Workers\n"
        "with Workers(3) as pool:\n"
        "    print(list(pool.map(len, ['abc'] * 100)))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60, env=environment)
    assert done.returncode == 1
    assert done.stderr.count("Traceback") == 1, done.stderr
    assert 'put `if __name__ == "__main__":` before what the script does' in done.stderr.splitlines()[-1]


def test_a_worker_that_dies_before_its_first_image_ends_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_work", dies_at_birth)
    with Workers(2) as pool, pytest.raises(WorkersLost, match=r"ended before its first image \(exit code 4\)"):
        list(pool.map(tenfold, range(100)))


def test_a_person_who_stops_the_job_does_not_wait_for_the_workers() -> None:
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt), Workers(2, seconds=60) as pool:
        answers = pool.map(endless_at_7, [0] * 40 + [7] * 100)
        next(answers)
        raise KeyboardInterrupt
    assert time.monotonic() - started < 30
    assert all(process.process.exitcode is not None or process.is_dead for process in pool.alive)


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


def test_what_belongs_together_goes_to_one_process_as_far_as_a_block_may_grow() -> None:
    """Files of 40, 1, 1 and 200 images: the first one is opened by one process, the last by few."""
    files = np.repeat([0, 1, 2, 3], [40, 1, 1, 200])
    with Workers(3) as pool:
        answers = np.array(list(pool.map(process, range(len(files)), together=lambda item: files[item])))
    assert len(set(answers[files == 0])) == 1
    assert np.count_nonzero(np.diff(answers[files == 3])) <= 200 // MOST
