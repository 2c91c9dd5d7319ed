"""Probes: a run's arms are judged without training them, by k-NN and a linear classifier on their frozen features.

Observation only: everything is a function of the weights, the shards and the spec; no state of the training changes.
Decision 18 (docs/decisions/0018-probes.md) has the choices and what they cost.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from pipeline.core.seeds import derive
from pipeline.data.pixel_map import Pixels, open_pixels
from pipeline.data.shards.index import Shards, shards_of
from pipeline.data.splits import Labels, label_fraction
from pipeline.learn import backbones
from pipeline.learn.augment import normalise, unit
from pipeline.learn.hardware import Hardware
from pipeline.learn.samples import Labelled, Samples
from pipeline.runs.cluster import Cluster
from pipeline.runs.spec import Augment, PretrainSpec

NEIGHBOURS = 20
MAX_TRAIN = 4000  # labelled images that the probes learn from
EVERY = 5  # they are judged after epochs 5, 25, 125, …
BATCH = 64  # images; the bits of a feature depend on it
INVERSE_PENALTY, MAX_ITERATIONS = 0.1, 200  # of the linear probe: scikit-learn's C and max_iter

Figures = dict[str, float | None]
"""Scores by `<arm>_<part>_knn` and `<arm>_<part>_linear_<percent of the labels>`; None where one is not defined."""


class Probes:
    """The labelled images of a dataset that judge networks, drawn by a seed.

    `skipped` says why there is nothing to judge with; it is empty where there is.
    """

    def __init__(
        self,
        shards: Shards,
        pixels: Pixels,
        augment: Augment,
        hardware: Hardware,
        *,
        seed: int,
        most: int,
    ) -> None:
        """`most`: how many labelled training images the probes learn from at most; they are judged on half of that."""
        self.hardware = hardware
        self.augment = augment
        self.classes = shards.classes
        self.task, self.metric = str(shards.manifest["task"]), str(shards.manifest["metric"])
        rows, rng = shards.of_split("train"), np.random.default_rng(derive("probes", seed))
        fractions = shards.manifest["label_fractions"]
        subsets = nested_subsets(shards.labels(rows), self.classes, fractions, seed, most)
        chosen = subsets[max(subsets)]
        device = hardware.torch_device
        self.train = Labelled(pixels, shards, [rows[i] for i in chosen], device)
        self.subsets = {fraction: np.searchsorted(chosen, subset) for fraction, subset in subsets.items()}
        """Positions in `train` of the images that a label fraction leaves."""
        self.judged = {}
        for part in ("val", "test"):
            every = Labelled(pixels, shards, shards.of_split(part), device)
            drawn = np.sort(rng.permutation(len(every))[: most // 2])
            if len(drawn):
                self.judged[part] = Labelled(pixels, shards, every.rows[drawn].tolist(), device)
        self.skipped = self._reason(shards.name)

    def _reason(self, name: str) -> str:
        if not len(self.train):
            return f"{name} has no labelled training image"
        if "val" not in self.judged:
            return f"{name} has no labelled validation image"
        if (self.train.targets.sum(dim=0) > 0).sum() < 2:
            return f"the labelled training images of {name} have fewer than two classes"
        return ""

    def facts(self) -> dict[str, Any]:
        """What a reader of the figures must know: metric, label fractions and numbers of images."""
        images = {"train": len(self.train), **{part: len(judged) for part, judged in self.judged.items()}}
        labelled = {percent(fraction): len(subset) for fraction, subset in self.subsets.items()}
        return {"metric": self.metric, "images": images, "labelled": labelled}

    def judge(self, arms: Mapping[str, nn.Module], *, parts: Sequence[str] = ("val", "test")) -> Figures:
        """The scores of networks with all labels, and with two parts those of the linear probe at every fraction."""
        out: Figures = {}
        for name, arm in arms.items():
            train = features(arm, self.train.samples, self.augment, self.hardware)
            judged = {
                part: features(arm, self.judged[part].samples, self.augment, self.hardware)
                for part in parts
                if part in self.judged
            }
            scores = self._scores(train, judged, list(self.subsets) if len(parts) > 1 else [max(self.subsets)])
            for (part, probe), found in scores.items():
                out[f"{name}_{part}_{probe}"] = self._score(part, found)
        return out

    def _scores(
        self, train: np.ndarray, judged: Mapping[str, np.ndarray], fractions: Sequence[float]
    ) -> dict[tuple[str, str], np.ndarray]:
        """Scores [n, classes] by part and probe; NaN where features are not finite."""
        probes = [f"linear_{percent(fraction)}" for fraction in fractions]
        if not all(np.isfinite(found).all() for found in (train, *judged.values())):
            empty = {part: np.full((len(found), len(self.classes)), np.nan) for part, found in judged.items()}
            return {(part, probe): scores for part, scores in empty.items() for probe in ("knn", *probes)}
        targets, single = self.train.targets.numpy(), self.task == "multi-class"
        with reproducible():
            out = {(part, "knn"): knn(train, targets, found) for part, found in judged.items()}
            for fraction, probe in zip(fractions, probes, strict=True):
                chosen = self.subsets[fraction]
                classify = linear(train[chosen], targets[chosen], single=single)
                out |= {(part, probe): classify(found) for part, found in judged.items()}
        return out

    def _score(self, part: str, scores: np.ndarray) -> float | None:
        from pipeline.learn import metrics  # scikit-learn takes a second to import

        if not np.isfinite(scores).all():
            return None
        targets = self.judged[part].targets.numpy().astype(int)
        value: float | None = metrics.score(targets, scores, self.classes, self.task)[self.metric]
        return value


def of_run(spec: PretrainSpec, cluster: Cluster, hardware: Hardware) -> Probes:
    """The probes of a pretraining run; they learn from no more images than the run does."""
    shards = shards_of(Path(cluster.shards), spec.dataset, size=spec.image_size)
    most = min(MAX_TRAIN, spec.pictures or MAX_TRAIN)
    return Probes(shards, open_pixels(shards, cluster), spec.augment, hardware, seed=spec.seed, most=most)


def due(epochs: int) -> bool:
    """Whether the arms are judged on the way after so many epochs: 5, 25, 125, …

    A function of that number alone, so that a longer run's rows are those of a shorter one (jobs/milestones).
    """
    while epochs > 1 and epochs % EVERY == 0:
        epochs //= EVERY
        if epochs == 1:
            return True
    return False


def percent(fraction: float) -> str:
    """`10` for 0.1."""
    return f"{100 * fraction:g}"


def nested_subsets(
    labels: Sequence[Labels], classes: Sequence[str], fractions: Sequence[float], seed: int, most: int
) -> dict[float, np.ndarray]:
    """Positions of labelled images by label fraction: fine-tuning's, of which at most `most` are drawn.

    A larger fraction contains every smaller one; sorted int64 arrays.
    """
    rng = np.random.default_rng(derive("probes", seed, "train"))
    chosen = np.empty(0, dtype=np.int64)
    out = {}
    for fraction in sorted(fractions):
        more = np.setdiff1d(label_fraction(labels, classes, fraction, seed), chosen)
        more = rng.permutation(more)[: most - len(chosen)]
        chosen = np.sort(np.concatenate([chosen, more]))
        out[fraction] = chosen
    return out


def features(network: nn.Module, samples: Samples, augment: Augment, hardware: Hardware) -> np.ndarray:
    """The frozen features of all images without augmentation: float32 [n, width]."""
    blocks = np.array_split(np.arange(len(samples)), -(-len(samples) // BATCH))
    images = (normalise(unit(pixels), augment) for pixels in samples.blocks(blocks))
    with hardware.autocast():
        found = backbones.forward_in_batches(network, images, partial(backbones.features, network))
    out: np.ndarray = found.numpy()
    return out


def knn(train: np.ndarray, targets: np.ndarray, judged: np.ndarray) -> np.ndarray:
    """The share of the nearest `NEIGHBOURS` by cosine that have each class: [n, classes].

    train [m, width] with targets [m, classes] of 0 and 1, judged [n, width].
    """
    from sklearn.neighbors import KNeighborsRegressor

    neighbours = min(NEIGHBOURS, len(train))
    model = KNeighborsRegressor(n_neighbors=neighbours, metric="cosine", algorithm="brute")
    out: np.ndarray = model.fit(train, targets).predict(judged)
    return out


def linear(train: np.ndarray, targets: np.ndarray, *, single: bool) -> Any:
    """A logistic regression on standardised features: gives scores [n, classes] of features [n, width].

    `single`: each image has one class, and the scores of an image sum to 1; else one-vs-rest. A class without an image
    has the score 0.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    regression = LogisticRegression(C=INVERSE_PENALTY, max_iter=MAX_ITERATIONS)
    train = train.astype(np.float64)
    if not single:
        return make_pipeline(StandardScaler(), OneVsRestClassifier(regression)).fit(train, targets).predict_proba
    present = np.flatnonzero(targets.any(axis=0))
    codes = targets.argmax(axis=1)
    model = None if len(present) == 1 else make_pipeline(StandardScaler(), regression).fit(train, codes)

    def classify(judged: np.ndarray) -> np.ndarray:
        out = np.zeros((len(judged), targets.shape[1]))
        out[:, present] = 1.0 if model is None else model.predict_proba(judged)
        return out

    return classify


@contextlib.contextmanager
def reproducible() -> Iterator[None]:
    """Linear algebra on one thread, so that its bits do not depend on the machine's cores; no warnings in the log."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1, user_api="blas"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a regression that has not converged after so many steps is still a probe
        yield
