"""`track --follow`: what is wrong from its start is an error, a tracker that stops answering is asked again."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from pipeline import track
from pipeline.cli import flags, status_text


@pytest.fixture
def followed(monkeypatch: pytest.MonkeyPatch) -> list[int | ValueError]:
    """What each sending gives, the next one first; a run lives while any is left."""
    answers: list[int | ValueError] = []

    def send_all(*given: object) -> int:
        if isinstance(answer := answers.pop(0), ValueError):
            raise answer
        return answer

    monkeypatch.setattr(sys, "argv", ["track", "--grid", "demo", "--to", "mlflow", "--follow"])
    monkeypatch.setattr(flags, "read_plan", lambda args: SimpleNamespace(cluster=SimpleNamespace(runs="runs")))
    monkeypatch.setattr(status_text, "read_queue", lambda plan: None)
    monkeypatch.setattr(status_text, "status_rows", lambda plan, queue: [])
    monkeypatch.setattr(status_text, "lives", lambda rows, runs: bool(answers))
    monkeypatch.setattr(track, "send_all", send_all)
    monkeypatch.setattr(track, "FOLLOW_SECONDS", 0.0)
    return answers


def test_what_is_wrong_from_the_start_is_an_error(followed: list[int | ValueError]) -> None:
    followed += [ValueError("mlflow is not installed"), 0]
    with pytest.raises(ValueError, match="not installed"):
        track.main()
    assert followed == [0]


def test_a_disk_that_is_away_for_a_moment_ends_no_following(
    followed: list[int | ValueError], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It reads the plan and the run folders again each time."""
    reads: list[int] = []

    def status_rows(plan: object, queue: object) -> list[object]:
        reads.append(1)
        if len(reads) == 2:
            raise OSError(116, "Stale file handle", "runs/a-1")
        return []

    monkeypatch.setattr(status_text, "status_rows", status_rows)
    followed += [0, 0]
    assert track.main() == 0 and not followed
    assert capsys.readouterr().err == "trying again soon: [Errno 116] Stale file handle: 'runs/a-1'\n"


def test_a_tracker_that_stops_answering_is_asked_again(
    followed: list[int | ValueError], capsys: pytest.CaptureFixture[str]
) -> None:
    followed += [0, ValueError("MLflow at http://x: down"), ValueError("MLflow at http://x: down"), 0]
    assert track.main() == 0 and not followed
    assert capsys.readouterr().err == "trying again soon: MLflow at http://x: down\n" * 2
