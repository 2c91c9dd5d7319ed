"""Records as offline runs of Weights & Biases: a folder for each, written whole, which `wandb sync` uploads."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

from pipeline.core import files
from pipeline.trackers.record import Record

SENT = "sent.json"
LONGEST_TAG = 64  # characters, W&B's limit


class Wandb:
    """A folder of offline runs. The id of a run there is ours, so W&B's server has one run for it, too.

    A folder that no longer equals the run is written again from its beginning: W&B cannot take back a point, and the
    run's folder holds them all.
    """

    def __init__(self, folder: Path, project: str) -> None:
        """Raises `ValueError` where wandb is not installed."""
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        try:
            import wandb
        except ImportError as error:
            raise ValueError(f'{error.name} is not installed: pip install "cass-pipeline[track]"') from None
        self.wandb = wandb
        wandb.teardown()  # its service takes each id once
        self.folder = folder.resolve()
        self.project = project
        self.folder.mkdir(parents=True, exist_ok=True)

    def send(self, record: Record) -> str:
        path = self.folder / record.id
        digest = record.digest
        with contextlib.suppress(OSError, ValueError):
            if files.read_json(path / SENT, dict).get("digest") == digest:
                return ""
        done = "more" if path.exists() else "new"
        shutil.rmtree(path, ignore_errors=True)
        with files.publish_folder(path) as temporary:
            self._write(record, temporary)
            files.write_json(temporary / SENT, {"digest": digest})
        return done

    def _write(self, record: Record, folder: Path) -> None:
        settings = self.wandb.Settings(
            silent=True,
            console="off",
            disable_code=True,
            disable_git=True,
            save_code=False,
            x_save_requirements=False,
            x_disable_meta=True,  # of the login node, which trained nothing
            x_disable_stats=True,
            x_disable_machine_info=True,
        )
        (folder / "wandb").mkdir()  # else wandb takes a folder for temporary files
        run = self.wandb.init(
            mode="offline",
            dir=str(folder),
            project=self.project,
            id=record.id,
            name=record.id,
            job_type=record.tags.get("kind"),
            config={**record.params, "cass": record.tags},
            tags=[f"{name}: {value}"[:LONGEST_TAG] for name, value in record.tags.items() if name != "reason"],
            settings=settings,
        )
        for epoch in record.epochs:
            for step, values in epoch:
                run.log(values, step=step)
        run.summary.update(record.result)
        for source in record.files:
            copy = shutil.copy(source, run.dir)
            run.save(copy, base_path=run.dir, policy="now")
        run.finish(exit_code=0 if record.state != "failed" else 1)
