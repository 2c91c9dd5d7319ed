"""Records as runs of an MLflow server. The server alone remembers what it was told; nothing is stored here."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from pipeline.core import files
from pipeline.trackers.record import LOSS, Point, Record, Refused

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run as MlflowRun

T = TypeVar("T")
RUN, SENT, REPLACED = "cass.run", "cass.sent", "cass.replaced"  # tags: the record's id and digest; deleted by us
PARAMS, METRICS = 100, 1000  # that MLflow takes in one request
LONGEST, LONGEST_NAME = 6000, 250  # characters of a parameter, of a name
KIND = {"mlflow.experimentKind": "custom_model_development"}  # its page then shows runs and curves first
STATUS = {"done": "FINISHED", "failed": "FAILED", "damaged": "FAILED", "running": "RUNNING", "interrupted": "KILLED"}
PATIENCE = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "30", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2"}
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


class Mlflow:
    """An experiment of a server. MLflow has no ids of ours, so a run is found by its tag `cass.run`.

    What the server holds of a run must be a beginning of what the folder says. Where it is not (the run was restarted
    on another device, say), that run is deleted there, which MLflow can undo, and told again from its beginning: a
    measured value cannot be changed there.
    """

    def __init__(self, uri: str, project: str) -> None:
        """Raises `ValueError` where MLflow is not installed or the server does not answer."""
        for name, value in {**PATIENCE, **QUIET}.items():
            os.environ.setdefault(name, value)
        try:
            from mlflow import MlflowClient
        except ImportError as error:
            raise ValueError(f'{error.name} is not installed: pip install "cass-pipeline[track]"') from None
        self.uri = uri
        with self._asking():
            self.client: MlflowClient = MlflowClient(tracking_uri=uri)
            self.experiment = self._experiment(project)
            self.there = self._find("LIKE '%'")
            gone = self._search("LIKE '%'", deleted=True)
            self.removed = {run.data.tags[RUN] for run in gone if REPLACED not in run.data.tags}

    def send(self, record: Record) -> str:
        with self._asking(one=True):
            run, digest = self.there.get(record.id), record.digest
            if run is None and record.id in self.removed:
                return "removed"
            if run is not None and run.data.tags.get(SENT) == digest:
                return ""
            record = renamed(record)
            done = "new" if run is None else "more"
            steps = self._steps(run) if run else {}
            if run is not None and not _begins(run, steps, record):
                self.client.set_tag(run.info.run_id, REPLACED, "yes")
                self.client.delete_run(run.info.run_id)
                run, steps, done = None, {}, "again"
            run = run or self._create(record)
            self._tell(run, record, steps)
            self.client.set_tag(run.info.run_id, SENT, digest)  # last: what a kill leaves untold the next call tells
            self.there[record.id] = self.client.get_run(run.info.run_id)
            return done

    def _experiment(self, project: str) -> str:
        found = self.client.get_experiment_by_name(project)
        if found is None:
            return str(self.client.create_experiment(project, tags=KIND))
        if found.lifecycle_stage != "active":
            raise ValueError(
                f"the experiment {project!r} is deleted on {self.uri}; restore it there, or give --project"
            )
        return str(found.experiment_id)

    def _find(self, which: str) -> dict[str, MlflowRun]:
        """The server's runs of ours, by our id. Of two for one run, which a lost answer may leave, the older stays."""
        found: dict[str, MlflowRun] = {}
        for run in self._search(which, deleted=False):
            name = run.data.tags[RUN]
            if name in found:
                self.client.set_tag(run.info.run_id, REPLACED, "yes")
                self.client.delete_run(run.info.run_id)
            else:
                found[name] = run
        return found

    def _search(self, which: str, *, deleted: bool) -> Iterator[MlflowRun]:
        """The runs of ours whose id is `which` (`= 'ID'`), those that somebody deleted or the others, oldest first."""
        from mlflow.entities import ViewType

        query = f"tags.`{RUN}` {which}"
        view, token = ViewType.DELETED_ONLY if deleted else ViewType.ACTIVE_ONLY, None
        while True:
            page = self.client.search_runs([self.experiment], query, view, 200, ["attributes.start_time ASC"], token)
            yield from page
            if not (token := page.token):
                return

    def _create(self, record: Record) -> MlflowRun:
        tags = {RUN: record.id, **record.tags}
        began = round(record.began * 1000)
        self.client.create_run(self.experiment, start_time=began, tags=tags, run_name=record.id)
        return self._find(f"= '{record.id}'")[record.id]  # a slow server may have been asked twice

    def _steps(self, run: MlflowRun) -> dict[int, float]:
        """The loss of each epoch that the server holds, by step."""
        return {metric.step: metric.value for metric in self.client.get_metric_history(run.info.run_id, LOSS)}

    def _untold(self, identity: str, point: Point) -> Point:
        """What the server lacks of a point that it was told: the probes of the end come to the last one later."""
        step, values = point
        told = {name: self.client.get_metric_history(identity, name) for name in values}
        return step, {name: values[name] for name in values if step not in {metric.step for metric in told[name]}}

    def _tell(self, run: MlflowRun, record: Record, steps: dict[int, float]) -> None:
        """Tell what is not there yet.

        A request holds whole epochs, and the server stores the metrics of one request together or not at all.
        """
        from mlflow.entities import Param, RunTag

        identity, known = run.info.run_id, run.data
        params = [Param(k, _text(v)) for k, v in record.params.items() if k not in known.params]
        for some in _chunks(params, PARAMS):
            self.client.log_batch(identity, params=some)
        when = run.info.start_time
        new = [_metrics(epoch, when) for epoch in record.epochs if epoch[-1][0] not in steps]
        if record.ended is not None and record.epochs and (last := record.epochs[-1][-1])[0] in steps:
            new.append(_metrics([self._untold(identity, last)], when))
        new.append(_metrics([(0, {k: v for k, v in record.result.items() if k not in known.metrics})], when))
        for request in _whole(new, METRICS):
            self.client.log_batch(identity, metrics=request)
        if record.ended is not None:
            self.client.set_terminated(identity, STATUS[record.state], round(record.ended * 1000))
        else:
            self.client.update_run(identity, status=STATUS[record.state])
        for name in {"reason"} & set(known.tags) - set(record.tags):
            self.client.delete_tag(identity, name)
        tags = {name: value for name, value in record.tags.items() if known.tags.get(name) != value}
        self.client.log_batch(identity, tags=[RunTag(name, value) for name, value in tags.items()])
        for path in record.files:  # last: some servers have no place for them that can be reached from here
            self.client.log_artifact(identity, str(path))

    @contextlib.contextmanager
    def _asking(self, *, one: bool = False) -> Iterator[None]:
        """Turn what MLflow raises into a `ValueError` that names the server; with `one`, into `Refused` where the
        server answers and only does not take this one record."""
        from mlflow.exceptions import MlflowException

        try:
            yield
        except (MlflowException, OSError, ImportError) as error:
            words = " ".join(str(error).split())
            if one and self._answers():
                raise Refused(f"MLflow at {self.uri} answers and did not take all of it: {words[:300]}") from error
            raise ValueError(f"MLflow at {self.uri}: {words[:300]}; start it, or give another --uri") from error

    def _answers(self) -> bool:
        from mlflow.exceptions import MlflowException

        try:
            return self.client.get_experiment(self.experiment) is not None
        except (MlflowException, OSError):
            return False


def _begins(run: MlflowRun, steps: dict[int, float], record: Record) -> bool:
    """Whether what the server holds of a run is a beginning of the record."""
    losses = {epoch[-1][0]: epoch[-1][1][LOSS] for epoch in record.epochs}
    same_losses = all(losses[step] == value for step, value in steps.items() if step in losses)
    params = {name: _text(value) for name, value in record.params.items()}
    same_params = all(params.get(name, value) == value for name, value in run.data.params.items())
    same_result = all(record.result.get(name, value) == value for name, value in run.data.metrics.items())
    return same_losses and same_params and same_result


def _metrics(points: Sequence[Point], when: int) -> list[Any]:
    """All have the time of the run's start: folders do not say when an epoch ended. MLflow stores equal ones once."""
    from mlflow.entities import Metric

    return [Metric(name, value, when, step) for step, values in points for name, value in values.items()]


def _whole(groups: Iterable[list[T]], most: int) -> Iterator[list[T]]:
    """The groups joined to lists of at most `most`; a group is never divided, unless it is longer itself."""
    out: list[T] = []
    for group in groups:
        if out and len(out) + len(group) > most:
            yield out
            out = []
        out = out + group
    for start in range(0, len(out), most):
        yield out[start : start + most]


def _chunks(items: Iterable[T], most: int) -> Iterator[list[T]]:
    rest = iter(items)
    while some := list(islice(rest, most)):
        yield some


def renamed(record: Record) -> Record:
    """The record with the names that MLflow takes, as `names_of` gives them."""

    def new(values: Mapping[str, T]) -> dict[str, T]:
        names = names_of(values)
        return {names[name]: value for name, value in values.items()}

    in_epochs = names_of(name for epoch in record.epochs for _, values in epoch for name in values)
    epochs = [[(step, {in_epochs[k]: v for k, v in values.items()}) for step, values in e] for e in record.epochs]
    return dataclasses.replace(
        record, params=new(record.params), tags=new(record.tags), result=new(record.result), epochs=epochs
    )


def names_of(names: Iterable[str]) -> dict[str, str]:
    """For each name one that MLflow takes: of few characters, not too long, and no path that is another's.

    A class may have any name. Of two that become the same, the later one ends with digits of a hash.
    """
    out: dict[str, str] = {}
    taken: set[str] = set()
    for name in dict.fromkeys(names):
        parts = re.sub(r"[^\w.:/ -]", "_", name, flags=re.ASCII).split("/")
        new = "/".join(part.replace(".", "_") or "_" if part in ("", ".", "..") else part for part in parts)
        if len(new) > LONGEST_NAME or new in taken:
            new = f"{new[: LONGEST_NAME - 9]}-{files.sha256_bytes(name.encode())[:8]}"
        out[name] = new
        taken.add(new)
    return out


def _text(value: Any) -> str:
    return str(value)[:LONGEST]
