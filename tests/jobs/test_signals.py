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
from pipeline.jobs.signals import STOPPED, Stop
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


def test_leaving_calls_submitits_handler_again_until_slurm_answers(monkeypatch, capsys):
    calls = []

    def handler(number, frame):
        calls.append(number)
        if len(calls) < 3:
            raise subprocess.CalledProcessError(1, "scontrol")
        sys.exit(-1)

    monkeypatch.setattr(signals, "REQUEUE_SECONDS", 0.0)
    before = signal.signal(signal.SIGUSR2, handler)
    try:
        with Stop() as stop:
            send(signal.SIGUSR2)
        with pytest.raises(SystemExit) as left:
            signals.leave(STOPPED, stop)
        assert left.value.code == -1 and calls == [signal.SIGUSR2] * 3
        assert capsys.readouterr().out.count("not requeued yet") == 2

        with Stop() as stop:
            send(signal.SIGTERM)
        with pytest.raises(SystemExit) as left:
            signals.leave(STOPPED, stop)
        assert left.value.code == STOPPED and len(calls) == 3
        signals.leave(0, stop)
    finally:
        signal.signal(signal.SIGUSR2, before)


def test_a_run_in_a_long_step_is_requeued_without_saving_when_its_grace_is_over():
    before = signal.signal(signal.SIGUSR2, lambda number, frame: sys.exit(-1))
    try:
        with pytest.raises(SystemExit) as left, Stop(grace=0.1):
            send(signal.SIGUSR2)
            time.sleep(5)
            raise AssertionError("nothing ended the long step")
        assert left.value.code == -1
    finally:
        signal.signal(signal.SIGUSR2, before)


def test_a_job_without_submitit_is_requeued_by_scontrol(tmp_path, monkeypatch):
    (tmp_path / "scontrol").write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/asked\n')
    (tmp_path / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    for name, value in {"SLURM_JOB_ID": "12", "SLURM_ARRAY_JOB_ID": "10", "SLURM_ARRAY_TASK_ID": "3"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("SUBMITIT_FOLDER", raising=False)
    with Stop() as stop:
        send(signal.SIGUSR2)
    with pytest.raises(SystemExit):
        signals.leave(STOPPED, stop)
    assert (tmp_path / "asked").read_text() == "requeue 10_3\n"


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
