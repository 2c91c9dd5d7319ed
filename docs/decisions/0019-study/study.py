"""What keeps CASS's arms apart? One variant of the loss from random weights, judged by probes on frozen features.

    python docs/decisions/0019-study/study.py pretrain SHARDS VARIANT [--batch 16] [--where logits] [--seed 0] …
    python docs/decisions/0019-study/study.py finetune SHARDS ARMS.pt|start [--seed 0]

Appends one JSON line to `--out`. It stands outside the product: variants that lost live here alone. Images are split
anew so that nothing leaks: images of one lesion, or whose perceptual hashes differ in at most LIMIT of 63 bits,
form groups, and a group is in one part only.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import timm
import torch
from scipy.fft import dctn
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, balanced_accuracy_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from pipeline.core.seeds import derive
from pipeline.data.shards.index import Shards, open_shards
from pipeline.data.shards.read import TarReader
from pipeline.learn import backbones, collapse
from pipeline.learn.augment import augment, normalise, unit
from pipeline.learn.methods import cass_vc
from pipeline.learn.methods.cass import agreement_loss
from pipeline.learn.samples import draws
from pipeline.runs.spec import half_cosine
from pipeline.study import paper

LIMIT = 4  # bits
PARTS = {"train": 2000, "val": 700, "test": 1500}  # images at most; of a smaller dataset the same shares
TAGS = {  # of the grids `small` and `demo`
    "small": {"cnn": "resnet10t", "transformer": "vit_tiny_patch16_224"},
    "demo": {"cnn": "test_resnet", "transformer": "test_vit3"},
}
FRACTIONS = (0.01, 0.1, 1.0)
WARMUP = 0.1
FINETUNE_STEPS = 150


# --- Images ----------------------------------------------------------------------------------------------------------


def read(shards: Shards) -> tuple[np.ndarray, np.ndarray]:
    """All images uint8 [n, side, side, 3] and their class numbers [n]."""
    count = len(shards.rows["key"])
    pixels = np.empty((count, shards.size, shards.size, 3), np.uint8)
    for _ in TarReader(shards).blocks(pixels):
        pass
    names = shards.labels(range(count))
    return pixels, np.array([shards.classes.index(labels[0]) for labels in names if labels])


def groups_of(shards: Shards, pixels: np.ndarray) -> np.ndarray:
    """The number [n] of each image's group: one lesion, or a chain of hashes that nearly agree."""
    count, side = len(pixels), pixels.shape[1] // 32
    grey = pixels.astype(np.float32).mean(3).reshape(count, 32, side, 32, side).mean((2, 4))
    low = dctn(grey, axes=(1, 2))[:, :8, :8].reshape(count, 64)[:, 1:]
    bits = (low > np.median(low, axis=1, keepdims=True)).astype(np.float32)
    ones = bits.sum(1)
    alike = ones[:, None] + ones[None] - 2 * bits @ bits.T <= LIMIT
    lesions = [shards.rows["group"][row] for row in range(count)]
    numbers = np.unique([lesion or f"none {row}" for row, lesion in enumerate(lesions)], return_inverse=True)[1]
    first, second = np.nonzero(alike | (numbers[:, None] == numbers[None]))
    return connected_components(coo_matrix((np.ones(len(first)), (first, second)), (count, count)), directed=False)[1]


def split(groups: np.ndarray) -> dict[str, np.ndarray]:
    """Rows of each part: shuffled groups, test first; the same for every variant and seed."""
    share = min(1, len(groups) / sum(PARTS.values()))
    order = np.random.default_rng(0).permutation(groups.max() + 1)
    rows = np.argsort(np.argsort(order)[groups], kind="stable")  # a group's images stand together
    out, at = {}, 0
    for part in ("test", "val", "train"):
        end = min(at + round(PARTS[part] * share), len(rows))
        while 0 < end < len(rows) and groups[rows[end]] == groups[rows[end - 1]]:
            end += 1
        out[part], at = rows[at:end], end
    return out


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


def loss_of(o: argparse.Namespace, outputs: list[Tensor], guarded: list[Tensor], extra: nn.ModuleList, step: int):
    """The loss of a step: `outputs` are both arms' logits [n, d], `guarded` what the terms that keep apart read."""
    r, t = outputs
    if o.variant == "paper":
        return agreement_loss(r, t)
    if o.variant in ("guard", "vicreg"):  # the product's cass_vc, on the sphere; and as published, on raw outputs
        guarded = [cass_vc.on_sphere(z) for z in guarded] if o.variant == "guard" else guarded
        agreement = agreement_loss(r, t) if o.variant == "guard" else (r - t).square().mean()
        return agreement + sum(o.a * cass_vc.variance_term(z) + o.b * cass_vc.covariance_term(z) for z in guarded)
    if o.variant in ("infonce", "contrast"):
        similar = normalize(r, dim=-1) @ normalize(t, dim=-1).T / o.a
        own = torch.arange(len(r))
        loss = (cross_entropy(similar, own) + cross_entropy(similar.T, own)) / 2
        if o.variant == "contrast":  # every direction in use, as well
            loss = loss + o.b * sum(cass_vc.covariance_term(cass_vc.on_sphere(z)) for z in guarded)
        return loss
    if o.variant == "simsiam":
        return (agreement_loss(extra[0](r), t.detach()) + agreement_loss(extra[1](t), r.detach())) / 2
    if o.variant == "isotropy":
        random = torch.Generator().manual_seed(step)
        middle = (r + t) / 2
        apart = sum(isotropy(z, random) for z in guarded) / 2
        return (1 - o.a) * ((r - middle).square().mean() + (t - middle).square().mean()) / 2 + o.a * apart
    raise SystemExit(f"unknown variant {o.variant}")


def new_arms(o: argparse.Namespace, size: int) -> nn.ModuleDict:
    """Both networks with the random weights of a seed."""
    torch.manual_seed(derive("init", o.seed))
    sizes = {"cnn": {}, "transformer": {"img_size": size}}
    tags = TAGS[o.backbones]
    return nn.ModuleDict({n: timm.create_model(tag, num_classes=1000, **sizes[n]) for n, tag in tags.items()})


def train(o: argparse.Namespace, pixels: Tensor, rows: np.ndarray) -> tuple[nn.ModuleDict, list[float]]:
    """Both arms after the last step, and the mean loss of each epoch."""
    arms = new_arms(o, pixels.shape[1])
    extra = nn.ModuleList([predictor(1000), predictor(1000)] if o.variant == "simsiam" else [])
    optimizer = torch.optim.Adam([*arms.parameters(), *extra.parameters()])
    steps = len(rows) // o.batch
    losses = []
    for epoch in range(o.epochs):
        order, total = rows[np.random.default_rng(derive("order", o.seed, epoch)).permutation(len(rows))], 0.0
        for step in range(steps):
            progress = (epoch + step / steps) / o.epochs
            late = half_cosine(o.lr, 0, (progress - WARMUP) / (1 - WARMUP))
            rate = o.lr * progress / WARMUP if progress < WARMUP else late
            if o.schedule == "paper":
                rate = paper.PRETRAIN_OPTIM.lr_at(step=epoch * steps + step, epoch=epoch)
            for group in optimizer.param_groups:
                group["lr"] = rate
            chosen = pixels[order[step * o.batch : (step + 1) * o.batch]]
            images = augment(chosen, paper.AUGMENT, draws("augment", o.seed, epoch, step))
            features = [backbones.features(arm, images) for arm in arms.values()]
            heads = [arm.get_classifier()(z) for arm, z in zip(arms.values(), features, strict=True)]
            loss = loss_of(o, heads, heads if o.where == "logits" else features, extra, epoch * steps + step)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() / steps
        losses.append(round(total, 4))
        print(f"epoch {epoch + 1}: loss {total:.4f}", flush=True)
    return arms, losses


# --- Judging ---------------------------------------------------------------------------------------------------------


@torch.no_grad()
def outputs_of(arm: nn.Module, pixels: Tensor, head: bool) -> np.ndarray:
    """Features or logits of images without augmentation, in evaluation mode."""
    arm.eval()
    call = arm if head else lambda images: backbones.features(arm, images)
    out = [call(normalise(unit(block), paper.AUGMENT)) for block in pixels.split(256)]
    arm.train()
    return torch.cat(out).numpy()


def scores(truth: np.ndarray, said: np.ndarray) -> np.ndarray:
    return np.array([accuracy_score(truth, said), balanced_accuracy_score(truth, said)])


def drawn(labels: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Positions of a stratified fraction, at least one of each class."""
    random = np.random.default_rng(derive("labels", seed))
    members = [random.permutation(np.flatnonzero(labels == c)) for c in np.unique(labels)]
    return np.concatenate([rows[: max(1, round(fraction * len(rows)))] for rows in members])


def judge(arms: nn.ModuleDict, pixels: Tensor, labels: np.ndarray, parts: dict[str, np.ndarray]) -> dict:
    """Spread and rank of both arms, and [accuracy, balanced accuracy] of the probes on val and test."""
    found: dict = {}
    learn = labels[parts["train"]]
    for name, arm in arms.items():
        features = {part: outputs_of(arm, pixels[rows], False) for part, rows in parts.items()}
        logits = torch.from_numpy(outputs_of(arm, pixels[parts["train"][:512]], True))
        inner = torch.from_numpy(features["train"][:512])
        row = {"spread": collapse.spread(logits), "rank": collapse.effective_rank(logits)}
        row |= {"features_spread": collapse.spread(inner), "features_rank": collapse.effective_rank(inner)}
        near = KNeighborsClassifier(20, metric="cosine").fit(features["train"], learn)
        for part in ("val", "test"):
            truth = labels[parts[part]]
            row[f"{part}_knn"] = scores(truth, near.predict(features[part])).tolist()
        for fraction in FRACTIONS:
            of = {"val": [], "test": []}
            for seed in range(1 if fraction == 1 else 5):  # the mean over five draws of few labels
                few = drawn(learn, fraction, seed)
                probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=200))
                probe.fit(features["train"][few], learn[few])
                for part, several in of.items():
                    several.append(scores(labels[parts[part]], probe.predict(features[part])))
            row |= {f"{part}_linear_{fraction:g}": np.mean(several, 0).tolist() for part, several in of.items()}
        found[name] = {
            key: [round(v, 4) for v in value] if isinstance(value, list) else round(value, 4)
            for key, value in row.items()
        }
    return found


def finetune(o: argparse.Namespace, pixels: Tensor, labels: np.ndarray, parts: dict[str, np.ndarray]) -> dict:
    """[accuracy, balanced accuracy] on test after FINETUNE_STEPS steps on few labels, for each arm and fraction."""
    found: dict = {}
    for fraction in FRACTIONS[:2]:
        few = parts["train"][drawn(labels[parts["train"]], fraction, o.seed)]
        for name in TAGS[o.backbones]:
            arm = new_arms(o, pixels.shape[1])[name]
            if o.variant != "start":
                arm.load_state_dict(torch.load(o.variant, weights_only=True)[name])
            torch.manual_seed(derive("head", o.seed))
            arm.reset_classifier(int(labels.max()) + 1)
            optimizer = torch.optim.Adam(arm.parameters())
            for step in range(FINETUNE_STEPS):
                for group in optimizer.param_groups:
                    group["lr"] = half_cosine(o.lr, 0, step / FINETUNE_STEPS)
                random = np.random.default_rng(derive("batch", o.seed, step))
                rows = random.choice(few, min(16, len(few)), replace=False)
                images = augment(pixels[rows], paper.AUGMENT, draws("augment", o.seed, step))
                optimizer.zero_grad()
                cross_entropy(arm(images), torch.from_numpy(labels[rows])).backward()
                optimizer.step()
            said = outputs_of(arm, pixels[parts["test"]], True).argmax(1)
            found[f"{name}_{fraction:g}"] = scores(labels[parts["test"]], said).round(4).tolist()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("pretrain", "finetune"))
    parser.add_argument("shards", type=Path)
    parser.add_argument(
        "variant", help="start, paper, guard, vicreg, infonce, simsiam, isotropy; finetune: start or ARMS"
    )
    parser.add_argument("--a", type=float, default=1.0, help="first weight, or the temperature")
    parser.add_argument("--b", type=float, default=0.04, help="second weight")
    parser.add_argument("--where", choices=("logits", "features"), default="logits")
    parser.add_argument("--backbones", choices=tuple(TAGS), default="small", help="of which grid")
    parser.add_argument("--schedule", choices=("once", "paper"), default="once")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--lr", type=float, default=3e-4)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("study.jsonl"))
    parser.add_argument("--save", type=Path, help="where the arms' weights go")
    o = parser.parse_args()
    torch.set_num_threads(1)
    began = time.time()
    shards = open_shards(o.shards)
    stored, labels = read(shards)
    parts = split(groups_of(shards, stored))
    pixels = torch.from_numpy(stored)
    line = {key: str(value) if isinstance(value, Path) else value for key, value in vars(o).items() if key != "out"}
    line |= {"shards": shards.folder.name, "parts": {part: len(rows) for part, rows in parts.items()}}
    if o.what == "finetune":
        line |= {"finetuned": finetune(o, pixels, labels, parts)}
    else:
        arms, losses = (new_arms(o, shards.size), []) if o.variant == "start" else train(o, pixels, parts["train"])
        line |= {"losses": losses, "arms": judge(arms, pixels, labels, parts)}
        if o.save:
            torch.save({name: arm.state_dict() for name, arm in arms.items()}, o.save)
    line["seconds"] = round(time.time() - began)
    with o.out.open("a") as file:
        file.write(json.dumps(line) + "\n")
    print(json.dumps(line))


if __name__ == "__main__":
    main()
