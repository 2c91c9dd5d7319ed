"""What signals ask of a job and how it leaves; its output, its heartbeat and its lock."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from pipeline.core import files
from pipeline.jobs import heartbeat, signals
from pipeline.jobs.signals import REQUEUE, STOPPED, Stop
from pipeline.runs.folder import Run


def send(number: int) -> None:
    os.kill(os.getpid(), number)
    time.sleep(0.01)


def test_the_time_limits_signal_asks_for_a_requeue_and_sigterm_never_does():
    with Stop() as stop:
        assert not stop() and not stop.requeues
        send(signal.SIGUSR2)
        assert stop() and stop.requeues
        send(signal.SIGTERM)
        assert stop() and not stop.requeues


def test_handlers_and_the_mask_are_as_before_afterwards():
    before = [signal.getsignal(number) for number in signals.SIGNALS]
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
    try:
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR2)  # it waits until someone unblocks it
        with Stop() as stop:
            assert stop()
        assert signal.SIGUSR2 in signal.pthread_sigmask(signal.SIG_BLOCK, [])
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR2])
    assert [signal.getsignal(number) for number in signals.SIGNALS] == before


def test_an_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Stop() as stop:
            send(signal.SIGINT)
            assert not stop()
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_processes_learn_of_a_signal_by_a_file(tmp_path):
    path = tmp_path / "stop"
    with Stop(stop_file=path) as stop:
        trial = Stop(watched_file=str(path))
        assert not trial()
        send(signal.SIGTERM)
        assert stop() and trial()


def test_leaving_asks_the_batch_shell_for_a_requeue_and_on_this_machine_submitits_handler(monkeypatch):
    calls = []

    def handler(number, frame):
        calls.append(number)
        sys.exit(-1)

    def left(number: int) -> int:
        with Stop() as stop:
            send(number)
        with pytest.raises(SystemExit) as caught:
            signals.leave(STOPPED, stop)
        signals.leave(0, stop)
        return caught.value.code

    before = signal.signal(signal.SIGUSR2, handler)
    try:
        monkeypatch.delenv(signals.BATCH_SHELL, raising=False)
        assert (left(signal.SIGUSR2), left(signal.SIGTERM), calls) == (-1, STOPPED, [signal.SIGUSR2])
        monkeypatch.setenv(signals.BATCH_SHELL, "1")
        assert (left(signal.SIGUSR2), left(signal.SIGTERM), calls) == (REQUEUE, STOPPED, [signal.SIGUSR2])
    finally:
        signal.signal(signal.SIGUSR2, before)


@pytest.mark.parametrize(
    "work", ["with signals.Stop(grace=0.1): os.kill(os.getpid(), signal.SIGUSR2)", "signals.leave_at_time_limit()"]
)
def test_what_takes_long_to_save_or_saves_as_it_proceeds_is_requeued_at_once(work):
    """The first without saving, when its grace is over; a helper process that stays does not keep it."""
    body = f"{work}; os.kill(os.getpid(), signal.SIGUSR2); time.sleep(60)"
    if work.startswith("with"):
        body = f"{work}; time.sleep(60)"
    code = f"import os, signal, time\nfrom pipeline.jobs import signals\n{body}\n"
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, signals.BATCH_SHELL: "1"}, timeout=50)
    assert done.returncode == REQUEUE


def test_output_goes_to_a_file_and_comes_back(tmp_path):
    code = (
        "import os, pathlib\n"
        "from pipeline.jobs.output import output_to\n"
        "with output_to(pathlib.Path('log.txt')):\n"
        "    print('of the run')\n"
        "    os.write(2, b'of a decoder\\n')\n"
        "print('of the job')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert sorted((tmp_path / "log.txt").read_text().splitlines()) == ["of a decoder", "of the run"]
    assert done.stdout == "of the job\n" and done.stderr == ""


def test_a_working_run_has_a_heartbeat(tmp_path, monkeypatch):
    monkeypatch.setattr(heartbeat, "SECONDS", 0.05)
    run = Run(tmp_path)
    with run.lock():
        os.utime(run["lock"], (0, 0))
        assert run.silence() > 1e9
        with heartbeat.heartbeat(run):
            time.sleep(0.3)
        assert run.silence() < 60


def test_no_time_passes_for_a_run_while_its_process_is_stopped(tmp_path):
    code = (
        "import pathlib, sys, time\n"
        "from pipeline.core import clock\n"
        "from pipeline.jobs import heartbeat\n"
        "from pipeline.runs.folder import Run\n"
        "heartbeat.SECONDS, heartbeat.LATE = 0.1, 1.0\n"
        "with heartbeat.heartbeat(Run(pathlib.Path('.'))):\n"
        "    before = time.monotonic() - clock.working()\n"
        "    time.sleep(0.05)  # the heartbeat waits by then: half of its period\n"
        "    print('ready', flush=True)\n"
        "    sys.stdin.readline()\n"
        "    time.sleep(0.5)\n"
        "    print(time.monotonic() - clock.working() - before)\n"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": tmp_path}
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as process:
        process.stdout.readline()
        process.send_signal(signal.SIGSTOP)
        time.sleep(2.5)
        process.send_signal(signal.SIGCONT)
        out, _ = process.communicate("\n")
    assert float(out) > 2


def test_a_stop_ends_the_wait_for_a_lock(tmp_path):
    run = Run(tmp_path)
    calls = []

    def stop() -> bool:
        calls.append(1)
        return len(calls) > 3

    with run.lock(), pytest.raises(files.Busy), run.lock(patience=60, stop=stop):
        pass


def test_the_first_ctrl_c_is_answered_at_once(capfd):
    with signals.signals_noted("stopping; each run is saving") as asked:
        assert not asked()
        send(signal.SIGINT)
        assert asked() and capfd.readouterr().err.strip() == "stopping; each run is saving"
        send(signal.SIGINT)
        assert capfd.readouterr().err == ""


def test_a_stop_file_that_cannot_be_made_ends_no_job(tmp_path):
    with Stop(stop_file=tmp_path / "removed" / "stop") as stop:
        send(signal.SIGUSR2)
        assert stop() and stop.requeues
