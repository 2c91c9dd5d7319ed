"""A fine-tuning run, from its spec to stored test predictions and their scores (paper E.3 and E.5, fidelity 3b)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.data.pixel_map import open_pixels
from pipeline.data.shards.index import Shards, shards_of
from pipeline.data.splits import label_fraction
from pipeline.learn import backbones, calibration, loop, metrics, optim
from pipeline.learn.augment import augment, normalise, unit
from pipeline.learn.hardware import Hardware, to_device
from pipeline.learn.losses import class_weights, focal_loss
from pipeline.learn.program import Counters, Program
from pipeline.learn.samples import Labelled, draws
from pipeline.runs.cluster import Cluster
from pipeline.runs.folder import Run
from pipeline.runs.predictions import write_predictions
from pipeline.runs.spec import FinetuneSpec

EVALUATION_BATCH = 64  # images; the bits of a score depend on it


class Finetuning(Program):
    """One backbone, end to end, on the labelled fraction; keeps the weights with the lowest validation loss."""

    keep_gradients = False

    def __init__(self, spec: FinetuneSpec, shards: Shards, cluster: Cluster, hardware: Hardware) -> None:
        self.spec = spec
        self.hardware = hardware
        self.device = device = hardware.torch_device
        self.classes = shards.classes
        self.task = str(shards.manifest["task"])
        pixels = open_pixels(shards, cluster)
        train = shards.of_split("train")
        chosen = label_fraction(shards.labels(train), self.classes, spec.label_fraction, spec.seed)
        self.train = Labelled(pixels, shards, [train[i] for i in chosen], device)
        val = shards.of_split("val")
        seen = label_fraction(shards.labels(val), self.classes, spec.val_fraction, spec.seed)
        self.val = Labelled(pixels, shards, [val[i] for i in seen], device)
        self.test = Labelled(pixels, shards, shards.of_split("test"), device)
        for part, labelled in (("train", self.train), ("val", self.val), ("test", self.test)):
            if not len(labelled):
                raise ValueError(f"{spec.dataset.name} has no labelled image in {part}; fine-tuning needs some in each")

        self.model = backbones.start_of(spec, len(self.classes), cluster).to(device)
        self.module = self.model
        self.optimizers = [(optim.build(spec.optim, self.model.parameters()), spec.optim)]
        self.epochs = spec.epochs
        self.steps_per_epoch = -(-len(self.train) // spec.batch_size)
        rows = train if spec.loss.counted == "train" else [*train, *shards.of_split("val")]
        every = [names for names in shards.labels(rows) if names is not None]
        counts = [sum(name in names for names in every) for name in self.classes]
        self.weights = class_weights(counts, spec.loss.class_weights).to(device)
        self.best: dict[str, Any] = {"epoch": -1, "loss": float("inf"), "model": {}}
        self.previous = float("inf")
        self.bad_epochs = 0

    def inputs(self, epoch: int, step: int) -> tuple[tuple[Tensor, ...], int]:
        """Augmented images [n, 3, h, w] and their targets [n, classes]."""
        self.model.train()
        positions, pixels = self.train.samples.step(self.spec.seed, epoch, step, self.spec.batch_size)
        taken = len(positions)
        if taken == 1:  # batch norm needs two: a single last image is used twice, with its own augmentation each time
            positions, pixels = np.repeat(positions, 2), pixels.repeat(2, 1, 1, 1)
        images = augment(pixels, self.spec.augment, draws("augment", self.spec.seed, epoch, step))
        return (images, to_device(self.train.targets[positions], self.device)), taken

    def loss(self, *inputs: Tensor) -> dict[str, Tensor]:
        images, targets = inputs
        return {"loss": self._focal(self.model(images), targets)}

    def _focal(self, logits: Tensor, targets: Tensor) -> Tensor:
        loss = self.spec.loss
        with torch.autocast(self.device.type, enabled=False):
            return focal_loss(logits, targets, self.weights, alpha=loss.alpha, gamma=loss.gamma)

    def after_step(self, epoch: int, step: int) -> None:
        pass

    def end_epoch(self, epoch: int) -> tuple[dict[str, Any], bool]:
        logits = self.logits(self.val)
        loss = self._focal(*(to_device(part, self.device) for part in (logits, self.val.targets))).item()
        if not np.isfinite(loss):
            raise ValueError(f"the validation loss is {loss} after epoch {epoch}; lower the learning rate")
        scores = torch.sigmoid(logits).numpy()
        found = metrics.score(self.val.targets.numpy(), scores, self.classes, self.task)
        if loss < self.best["loss"]:
            self.keep_best(epoch, loss)
        if self.spec.stopping == "best":
            self.bad_epochs = epoch - self.best["epoch"]
            stop = self.bad_epochs >= self.spec.patience
        else:  # the reference notebook counts rises over the epoch before and never resets (fidelity 3b, 28)
            self.bad_epochs += loss > self.previous
            stop = self.bad_epochs > self.spec.patience
        self.previous = loss
        shown = ("f1_micro", "f1_macro", "balanced_accuracy", "auroc")
        return {"val_loss": loss, **{f"val_{name}": found[name] for name in shown}}, stop

    def keep_best(self, epoch: int, loss: float) -> None:
        """Remember the present weights as those with the lowest validation loss."""
        state = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        self.best = {"epoch": epoch, "loss": loss, "model": state}

    @torch.no_grad()
    def logits(self, part: Labelled) -> Tensor:
        """The logits of a part in its order, without augmentation, in float32 on the CPU: [n, classes]."""
        blocks = np.array_split(np.arange(len(part)), -(-len(part) // EVALUATION_BATCH))
        images = (normalise(unit(pixels), self.spec.augment) for pixels in part.samples.blocks(blocks))
        with self.hardware.autocast():
            return backbones.forward_in_batches(self.model, images)

    def state(self) -> dict[str, Any]:
        return {"best": self.best, "previous": self.previous, "bad_epochs": self.bad_epochs}

    def restore(self, state: dict[str, Any]) -> None:
        self.best, self.previous, self.bad_epochs = state["best"], state["previous"], state["bad_epochs"]


def finetune(
    spec: FinetuneSpec,
    run: Run,
    cluster: Cluster,
    hardware: Hardware,
    should_stop: Callable[[], bool],
) -> tuple[dict[str, Any], Counters, dict[str, Any]]:
    """Run to the end, test once, store weights and predictions of both; returns (metrics, counters, notes)."""
    shards = shards_of(Path(cluster.shards), spec.dataset, size=spec.image_size)
    program = Finetuning(spec, shards, cluster, hardware)
    counters = loop.Trainer(
        program,
        run,
        hardware,
        checkpoint_seconds=cluster.checkpoint_minutes * 60,
        should_stop=should_stop,
        graphs=cluster.cuda_graphs,
    ).train()
    program.model.load_state_dict(program.best["model"])
    backbones.save_arms(run["weights"], {"model": program.model}, {"best_epoch": str(program.best["epoch"])})
    val_logits = program.logits(program.val)
    for part, name, logits in (
        (program.val, "val_predictions", val_logits),
        (program.test, "predictions", program.logits(program.test)),
    ):
        scores, targets = torch.sigmoid(logits).numpy(), part.targets.numpy()
        keys = [shards.rows["key"][row] for row in part.rows]
        write_predictions(run[name], keys, program.classes, targets, scores)
    found = metrics.score(targets.astype(int), scores, program.classes, program.task)
    notes = {
        "best_epoch": int(program.best["epoch"]),
        "labelled_pictures": len(program.train),
        "train_pictures": counters.images,
        "calibration": {
            "temperature": calibration.fit(val_logits.numpy(), program.val.targets.numpy(), program.task),
            "images": len(program.val),
        },
    }
    return found, counters, notes
