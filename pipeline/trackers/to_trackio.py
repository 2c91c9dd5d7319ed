"""Records in Trackio's store: a SQLite file of each project, which its dashboard reads; nothing has to be up."""

from __future__ import annotations

import os
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from pipeline.trackers.record import Point, Record

DIGEST = "cass.digest"  # in a run's configuration: of all that was told


class Trackio:
    """A folder with Trackio's store. A run there has our id, so there is one for ever.

    A run that has changed is deleted and written again, its points and its digest in one transaction: a kill leaves it
    whole, or away until the next call. Trackio keeps numbers and the configuration; it is told of no files.
    """

    def __init__(self, folder: Path, project: str) -> None:
        """Raises `ValueError` where trackio is not installed."""
        os.environ["TRACKIO_DIR"] = str(folder.resolve())  # read when it is imported
        try:
            from trackio.sqlite_storage import SQLiteStorage
        except ImportError:
            raise ValueError(
                "trackio is not installed; it needs an older Pillow than the locked one, so give it an "
                "environment of its own: make trackio, then .venv-trackio/bin/python -m pipeline.track …"
            ) from None
        self.store = SQLiteStorage
        self.project = project
        self.there: dict[str, dict[str, Any]] = self.store.get_all_run_configs(project)

    def send(self, record: Record) -> str:
        held = self.there.get(record.id)
        rows = rows_of(record)
        if not rows or (held is not None and held.get(DIGEST) == record.digest):
            return ""
        if held is not None:
            self.store.delete_run(self.project, record.id, record.id)
        config = {**record.params, **{f"cass.{name}": value for name, value in record.tags.items()}}
        when = datetime.fromtimestamp(record.began, timezone.utc).isoformat()
        self.store.bulk_log(
            self.project,
            record.id,
            [values for _, values in rows],
            steps=[step for step, _ in rows],
            timestamps=[when] * len(rows),
            config={**config, DIGEST: record.digest},
            run_id=record.id,
        )
        return "new" if held is None else "more"


def rows_of(record: Record) -> list[Point]:
    """The points of all epochs, and the result at the last step; none before the first epoch has ended."""
    rows = [point for epoch in record.epochs for point in epoch]
    return [*rows, (rows[-1][0] if rows else 0, record.result)] if record.result else rows
