"""What keeps CASS's arms apart? One variant of the loss from random weights, judged by the product's own probes.

    python docs/decisions/0019-study/study.py pretrain SHARDS VARIANT [--a 0.2] [--batch 16] [--seed 0] …
    python docs/decisions/0019-study/study.py finetune SHARDS ARMS.pt [--seed 0]

Appends one JSON line to `--out`. Variants that lost live here alone. Images, order, augmentation, start weights,
optimizer, collapse monitor and probes are those of a run with the same seed. Give shards of `--split grouped`: nothing
of their test images is in training. Networks and probes compute in `--precision`, bfloat16 where the processor has it
(it halves the time; without it takes eight times as long); loss and collapse monitor in float32.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from pipeline.core.seeds import derive
from pipeline.data.shards.index import Shards, open_shards
from pipeline.data.splits import label_fraction
from pipeline.learn import backbones, metrics, optim, probes
from pipeline.learn.augment import augment, normalise, unit
from pipeline.learn.hardware import Hardware
from pipeline.learn.methods.cass import Cass, agreement_loss
from pipeline.learn.methods.cass_vc import covariance_term, on_sphere, variance_term
from pipeline.learn.pretrain import Pretraining
from pipeline.learn.samples import Labelled, draws
from pipeline.runs.cluster import Cluster
from pipeline.runs.spec import DatasetRef, PretrainSpec
from pipeline.study import paper, recipes
from pipeline.study.grids import demo, small

SCALES = {"small": small.SCALE, "demo": demo.SCALE}
FRACTIONS = (0.01, 0.1)
FINETUNE_STEPS = 100


# --- Variants --------------------------------------------------------------------------------------------------------


def isotropy(z: Tensor, generator: torch.Generator, slices: int = 256) -> Tensor:
    """SIGReg (arXiv 2511.08544): Epps and Pulley's distance to a standard normal, mean over random directions."""
    directions = normalize(torch.randn(z.shape[1], slices, generator=generator), dim=0)
    t = torch.linspace(-5, 5, 17)
    target = torch.exp(-t.square() / 2)
    angles = (z @ directions)[..., None] * t  # [n, slices, 17]
    distance = (angles.cos().mean(0) - target).square() + angles.sin().mean(0).square()
    return torch.trapezoid(distance * target, t, dim=-1).mean() * len(z)


def predictor(width: int) -> nn.Sequential:
    """SimSiam's bottleneck (arXiv 2011.10566)."""
    return nn.Sequential(
        nn.Linear(width, width // 4, bias=False), nn.BatchNorm1d(width // 4), nn.ReLU(), nn.Linear(width // 4, width)
    )


def contrast(r: Tensor, t: Tensor, temperature: float) -> Tensor:
    """InfoNCE across the arms (arXiv 1807.03748): each image's own answer of the other arm among the batch's."""
    similar = normalize(r, dim=-1) @ normalize(t, dim=-1).T / temperature
    own = torch.arange(len(r))
    return (cross_entropy(similar, own) + cross_entropy(similar.T, own)) / 2


def likeness(z: Tensor) -> Tensor:
    """The mean squared cosine of two different images: 1 / rank of the directions in use (arXiv 2106.04156)."""
    u = normalize(z, dim=-1)
    return (u @ u.T)[~torch.eye(len(u), dtype=torch.bool)].square().mean()


class Variant(Cass):
    """CASS's arms with the loss of the study's arguments."""

    def __init__(self, arms: dict[str, nn.Module], spec: PretrainSpec, o: argparse.Namespace) -> None:
        super().__init__(arms, spec.augment)
        self.o = o
        self.extra = nn.ModuleList([predictor(1000), predictor(1000)] if o.variant == "simsiam" else [])

    def inputs(self, pixels: Tensor, draws: torch.Generator, progress: float) -> tuple[Tensor, ...]:
        self.draws = draws  # of this step: isotropy draws directions
        with torch.autocast("cpu", enabled=False):
            return super().inputs(pixels, draws, progress)

    def loss(self, *inputs: Tensor) -> dict[str, Tensor]:
        images, *_ = inputs
        features = [backbones.features(arm, images) for arm in self.networks.values()]
        heads = [arm.get_classifier()(z) for arm, z in zip(self.networks.values(), features, strict=True)]
        with torch.autocast("cpu", enabled=False):
            guarded = heads if self.o.where == "logits" else features
            return {"loss": self.apart([z.float() for z in heads], [z.float() for z in guarded], self.draws)}

    def apart(self, outputs: list[Tensor], guarded: list[Tensor], random: torch.Generator) -> Tensor:
        """The loss: `outputs` are both arms' logits [n, d], `guarded` what the terms that keep apart read."""
        o, (r, t) = self.o, outputs
        if o.variant == "paper":
            return agreement_loss(r, t)
        if o.variant in ("guard", "vicreg"):  # on the sphere, and as published on raw outputs
            guarded = [on_sphere(z) for z in guarded] if o.variant == "guard" else guarded
            agreement = agreement_loss(r, t) if o.variant == "guard" else 25 * (r - t).square().mean()
            return agreement + sum(o.a * variance_term(z) + o.b * covariance_term(z) for z in guarded)
        if o.variant == "infonce":
            return contrast(r, t, o.a)
        if o.variant == "contrast":  # every direction in use, as well
            return contrast(r, t, o.a) + o.b * sum(likeness(z) for z in guarded)
        if o.variant == "spectral":
            return agreement_loss(r, t) + o.a * sum(likeness(z) for z in guarded)
        if o.variant == "logrank":
            return agreement_loss(r, t) + o.a * sum((likeness(z) + 1 / z.shape[1]).log() for z in guarded)
        if o.variant == "simsiam":
            one, other = self.extra
            return (agreement_loss(one(r), t.detach()) + agreement_loss(other(t), r.detach())) / 2
        if o.variant == "isotropy":
            middle = (r + t) / 2
            distance = ((r - middle).square().mean() + (t - middle).square().mean()) / 2
            return (1 - o.a) * distance + o.a * sum(isotropy(z, random) for z in guarded) / 2
        raise SystemExit(f"unknown variant {o.variant}")


# --- Pretraining -----------------------------------------------------------------------------------------------------


def spec_of(o: argparse.Namespace, shards: Shards) -> PretrainSpec:
    """A run of cass_vc with the study's batch, epochs and rates; `paper`: with the paper's optimizer."""
    pair = [replace(SCALES[o.backbones].backbone(b), weights="random") for b in paper.STANDARD]
    ref = DatasetRef(name=shards.name, fingerprint=shards.fingerprint)
    spec = recipes.cass_vc(ref, pair, seed=o.seed, rates={"cnn": o.lr, "transformer": o.lr_transformer})
    spec = replace(spec, batch_size=o.batch, image_size=shards.size, epochs=o.epochs)
    return recipes.with_optim(spec, paper.PRETRAIN_OPTIM) if o.variant == "paper" else spec


def figures(program: Pretraining) -> dict[str, Any]:
    """What the collapse monitor and the probes say."""
    found = {**program.monitor(0), **program.judge(program.method.arms(), "now")}
    return {key: round(value, 4) if isinstance(value, float) else value for key, value in found.items()}


def pretrain(o: argparse.Namespace, shards: Shards, cluster: Cluster) -> dict[str, Any]:
    """The figures of both arms at start and end, and the mean loss of each epoch; writes `o.save`."""
    program = Pretraining(spec_of(o, shards), cluster, torch.device("cpu"))
    pixels = probes.open_pixels(shards, cluster)
    program.probes = probes.Probes(shards, pixels, program.spec.augment, o.hardware, seed=o.seed, most=o.images)
    method = program.method = Variant(dict(program.method.arms()), program.spec, o)
    method.networks["cnn"].to(memory_format=torch.channels_last)
    if method.extra:
        program.optimizers[0][0].add_param_group({"params": list(method.extra.parameters())})
    start, losses = figures(program), []
    for epoch in range(o.epochs):
        total = 0.0
        for step in range(program.steps_per_epoch):
            for optimizer, rates in program.optimizers:
                done = epoch * program.steps_per_epoch + step
                optim.schedule(optimizer, rates, step=done, epoch=epoch, progress=program.progress(epoch, step))
                optimizer.zero_grad()
            with o.hardware.autocast():
                loss = program.loss(*program.inputs(epoch, step)[0])["loss"]
            loss.backward()
            for optimizer, _ in program.optimizers:
                optimizer.step()
            total += loss.item() / program.steps_per_epoch
        losses.append(round(total, 4))
        seen = program.monitor(epoch)
        print(f"epoch {epoch + 1}: loss {total:.4f}, " + ", ".join(f"{k} {v:.2f}" for k, v in seen.items()), flush=True)
    if o.save:
        torch.save({name: arm.state_dict() for name, arm in method.arms().items()}, o.save)
    return {"steps": o.epochs * program.steps_per_epoch, "losses": losses, "start": start, "end": figures(program)}


# --- Fine-tuning -----------------------------------------------------------------------------------------------------


def finetune(o: argparse.Namespace, shards: Shards, cluster: Cluster) -> dict[str, Any]:
    """The dataset's metric on test after fine-tuning, from a seed's start weights and from the arms of `o.variant`.

    Keys: `supervised_<arm>_<percent of the labels>`, `pretrained_…`. Labels, batches and heads are the same for both.
    """
    program = Pretraining(spec_of(o, shards), cluster, torch.device("cpu"))
    pixels = probes.open_pixels(shards, cluster)
    train, test = (Labelled(pixels, shards, shards.of_split(part), torch.device("cpu")) for part in ("train", "test"))
    start = {name: arm.state_dict() for name, arm in program.method.arms().items()}
    found: dict[str, Any] = {}
    for what, states in {"supervised": start, "pretrained": torch.load(o.variant, weights_only=True)}.items():
        for arm in program.spec.arms:
            for fraction in FRACTIONS:
                torch.manual_seed(derive("head", o.seed))
                network = backbones.from_file(arm.backbone, None, outputs=len(shards.classes), image_size=shards.size)
                backbones.load_body(network, states[arm.name])
                labels = shards.labels(train.rows.tolist())
                few = np.asarray(label_fraction(labels, shards.classes, fraction, o.seed))
                fit(o, network, train, few, arm.optim.lr)
                found[f"{what}_{arm.name}_{probes.percent(fraction)}"] = round(score(o, network, test, shards), 4)
                print(found, flush=True)
    return {"finetuned": found}


def fit(o: argparse.Namespace, network: nn.Module, train: Labelled, few: np.ndarray, lr: float) -> None:
    """FINETUNE_STEPS steps of Adam on some labelled images, at a rate that falls to zero."""
    rates = replace(paper.FINETUNE_OPTIM, lr=lr, schedule="once")
    optimizer = optim.build(rates, network.parameters())
    for step in range(FINETUNE_STEPS):
        optim.schedule(optimizer, rates, step=step, epoch=0, progress=step / FINETUNE_STEPS)
        rng = np.random.default_rng(derive("batch", o.seed, step))
        rows = rng.choice(few, min(16, len(few)), replace=False)
        images = augment(train.samples.take(rows), paper.AUGMENT, draws("augment", o.seed, step))
        optimizer.zero_grad()
        with o.hardware.autocast():
            logits = network(images)
        cross_entropy(logits.float(), train.targets[rows].argmax(1)).backward()
        optimizer.step()


def score(o: argparse.Namespace, network: nn.Module, test: Labelled, shards: Shards) -> float:
    """The dataset's metric on its test images."""
    blocks = np.array_split(np.arange(len(test)), -(-len(test) // 64))
    images = (normalise(unit(block), paper.AUGMENT) for block in test.samples.blocks(blocks))
    with o.hardware.autocast():
        said = backbones.forward_in_batches(network, images).softmax(1).numpy()
    scores = metrics.score(test.targets.numpy().astype(int), said, shards.classes, str(shards.manifest["task"]))
    return float(scores[str(shards.manifest["metric"])])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("pretrain", "finetune"))
    parser.add_argument("shards", type=Path)
    parser.add_argument("variant", help="see Variant.apart; finetune: the file that --save wrote")
    parser.add_argument("--a", type=float, default=2.0, help="first weight, or the temperature")
    parser.add_argument("--b", type=float, default=0.04, help="second weight")
    parser.add_argument("--where", choices=("logits", "features"), default="logits")
    parser.add_argument("--backbones", choices=tuple(SCALES), default="small", help="of which grid")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--lr", type=float, default=3e-4, help="of the CNN")
    parser.add_argument("--lr-transformer", type=float, default=3e-5)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--images", type=int, default=2000, help="that the probes learn from, at most")
    parser.add_argument("--precision", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--out", type=Path, default=Path("study.jsonl"))
    parser.add_argument("--save", type=Path, help="where the arms' weights go")
    o = parser.parse_args()
    torch.set_num_threads(1)
    began = time.time()
    shards = open_shards(o.shards)
    line = {key: value for key, value in vars(o).items() if key not in ("out", "save")}
    o.hardware = Hardware(device="cpu", model="", precision=o.precision, threads=1)
    line |= {"shards": shards.folder.name, "variant": Path(o.variant).stem}
    with tempfile.TemporaryDirectory() as scratch:
        cluster = Cluster(shards=str(o.shards.parent), scratch=scratch, device="cpu")
        line |= (pretrain if o.what == "pretrain" else finetune)(o, shards, cluster)
    line["seconds"] = round(time.time() - began)
    with o.out.open("a") as file:
        file.write(json.dumps(line) + "\n")
    print(json.dumps(line))


if __name__ == "__main__":
    main()
