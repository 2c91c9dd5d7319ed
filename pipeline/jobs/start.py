"""How a run starts: what its bits depend on apart from its spec, fixed the first time and compared every time."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

from pipeline.core import files
from pipeline.core.seals import Damaged
from pipeline.data.shards.index import shards_of
from pipeline.jobs.gpus import name_in_slurm, request_of
from pipeline.jobs.signals import BATCH_SHELL
from pipeline.jobs.snapshot import code_version, library_versions
from pipeline.learn.weights import checked_sha256, start_weights
from pipeline.runs.cluster import Cluster
from pipeline.runs.folder import Run
from pipeline.runs.identity import run_id
from pipeline.runs.result import Start
from pipeline.runs.spec import PretrainSpec, Spec


class ParentDamaged(Damaged):
    """The pretraining run that a run starts from is damaged: the run has not failed, it waits for that one."""


class OtherCard(Exception):
    """The run began on another GPU model, and its job can be requeued to wait for one."""

    def __init__(self, first: str, this: str, card: str, request: str) -> None:
        super().__init__(f"this run began on {first}, and this node has {this}")
        self.waits_for = f"{first} ({card})"
        self.request = request
        """What `scontrol update` changes of the job."""


def begin(run: Run, hardware: dict[str, Any], inputs: dict[str, str], site: Cluster) -> Start:
    """What the run's bits depend on apart from its spec, fixed at the first start; it notes the code of every start.

    `ValueError` when this start has other files than the first had, or another device model and the site's
    `on_other_card` knows no way; `OtherCard` when the run is to wait for its own.
    """
    now = {"code": code_version(), "versions": library_versions(hardware["device"])}
    start = before = run.start()
    if start is not None and start.hardware["model"] != hardware["model"]:
        start = _on_other_card(run, start, hardware, site)
    if start is None:
        given = {name: dataclasses.asdict(weights) for name, weights in start_weights(run.spec).items() if weights}
        start = Start(
            hardware=hardware,
            inputs=inputs,
            milestones=tuple(run.milestones()),
            weights=given,
            card=name_in_slurm(hardware["model"]),
        )
    if not start.card:  # Slurm did not say at the first start
        start = dataclasses.replace(start, card=name_in_slurm(start.hardware["model"]))
    for name, checksum in inputs.items():
        if (first := start.inputs.get(name, "nothing")) != checksum:
            raise ValueError(_changed(run, name, first, checksum))
    run["waits"].unlink(missing_ok=True)
    if not start.starts or start.starts[-1] != now:
        start = dataclasses.replace(start, starts=(*start.starts, now))
    if start != before:
        files.write_json(run["start"], start.to_json())
    return start


def _on_other_card(run: Run, start: Start, hardware: dict[str, Any], site: Cluster) -> Start | None:
    """The start of a run that began on another device model; None if it begins again. Raises as `begin`."""
    first, this = start.hardware["model"], hardware["model"]
    if start.hardware.get("device", hardware["device"]) != hardware["device"]:  # a GPU and a CPU
        raise ValueError(_changed(run, "device", first, this))
    if site.on_other_card == "go_on" and run.checkpoints():
        print(f"this run began on {first} and continues on {this}: on_other_card is {site.on_other_card}", flush=True)
        devices = start.devices or ({"device": first, "step": 0},)
        devices += ({"device": this, "step": run.reached()},)
        there = {**start.hardware, "model": this}
        return dataclasses.replace(start, hardware=there, devices=devices, card=name_in_slurm(this))
    if site.on_other_card in ("go_on", "restart"):
        print(f"this run began on {first} and restarts on {this}: on_other_card is {site.on_other_card}", flush=True)
        for path in run.checkpoints():
            path.unlink()
        return None
    request = request_of(start.card, site.slurm)
    if BATCH_SHELL in os.environ and site.slurm.requeues and request and name_in_slurm(this) != start.card:
        raise OtherCard(first, this, start.card, request)
    raise ValueError(_changed(run, "device", first, this, "set on_other_card in the cluster file, "))


def _changed(run: Run, what: str, first: str, this: str, more: str = "") -> str:
    return (
        f"this run started with {what} {first} and its bits belong there, but now it is {this}; bring that back, "
        f"{more}or restart the run: python -m pipeline.clean --restart {run.id}"
    )


def inputs(spec: Spec, site: Cluster) -> dict[str, str]:
    """The SHA-256 of every file that the run reads: the index (which covers the images) and its start weights."""
    shards = shards_of(Path(site.shards), spec.dataset, size=spec.image_size)
    found = {f"index of {spec.dataset.name}": shards.index_checksum}
    for name, given in sorted(start_weights(spec).items()):
        found[f"weights of {name}"] = checked_sha256(name, Path(site.weights), given)
    if not isinstance(spec, PretrainSpec) and spec.pretrain is not None:
        parent = Run(Path(site.runs) / run_id(spec.pretrain))
        if (state := parent.state()) == "damaged":
            raise ParentDamaged(parent.reason())
        if state != "done":
            raise ValueError(f"it starts from {parent.id}, which is {state}; launch the grid to finish that run")
        try:
            found["pretrained weights"] = parent.check("weights", "a run that starts from it")
        except Damaged as error:
            raise ParentDamaged(str(error)) from error
    return found
