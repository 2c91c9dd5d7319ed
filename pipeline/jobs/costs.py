"""What a run costs: its GPU-hours and its parameters, as far as anything tells them.

Hours come from finished runs of the same kind under the same folder, else from a model of the cluster file's GPU, else
from the paper's Table 2. Sizes come from the paper, finished runs or start weights.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from pipeline.core import files
from pipeline.data.shards.counts import counts_of
from pipeline.data.shards.index import shards_of
from pipeline.jobs.measured import of_cluster
from pipeline.jobs.plan import Plan, PlannedRun
from pipeline.learn.weights import weights_file
from pipeline.runs.cluster import GPU_PEAKS, GPU_PRECISIONS, Cluster
from pipeline.runs.folder import Run
from pipeline.runs.methods import method_info
from pipeline.runs.spec import DatasetRef, FinetuneSpec, PretrainSpec, Spec, kind_of, method_of
from pipeline.runs.start_weights import StartWeights
from pipeline.study import paper

TABLE_2, DERIVED, MODELLED, UNKNOWN = "by Table 2", "derived from Table 2 by FLOPs", "modelled", "unknown"
TABLE_2_GPU = "RTX8000"  # Table 2's hours are taken as float32 (docs/reproducing.md)
PART_OF_PEAK = {"float32": (0.4, 0.5), "float16": (0.2, 0.3)}
"""The part of a GPU's peak FLOP/s that training reaches: around Table 2's CASS, and ASSUMED (docs/reproducing.md)."""
CASS_GFLOPS = sum(backbone.gflops or 0.0 for backbone in paper.STANDARD)
VALIDATION_COST = 1 / 3  # ASSUMED: a validation image costs a forward pass, the third part of a training image
SAMPLES = 3  # finished runs whose speed is averaged
MAX_OPENED = 200  # finished runs outside the plan that are opened in search of samples
FLOAT_BYTES = 4
UNREADABLE = (ValueError, TypeError, KeyError)  # what a file of another version of the code may raise


class Workload(NamedTuple):
    """What a run's speed depends on, apart from the device."""

    kind: str
    method: str
    """Of a pretraining run; what a fine-tune starts from does not change its speed."""
    backbones: tuple[str, ...]
    image_size: int


class RunHours(NamedTuple):
    """The GPU-hours of one run, or its hours on a CPU."""

    hours: float
    source: str
    """`measured on DEVICE`, `MODELLED`, `TABLE_2`, `DERIVED` or `UNKNOWN`."""
    dino_excess: float = 0.0
    """Hours too many if Table 2's hours of DINO are those of both backbones, not of each."""
    on_cpu: bool = False
    """Whether they were measured on a CPU: then they are no GPU-hours."""


def backbones_of(spec: Spec) -> tuple[str, ...]:
    """The tags of the backbones that a run trains."""
    return tuple(arm.backbone for arm in spec.arms) if isinstance(spec, PretrainSpec) else (spec.backbone,)


def workload_of(spec: Spec) -> Workload:
    method = method_of(spec) if isinstance(spec, PretrainSpec) else ""
    kind = "frozen" if method_of(spec) == "frozen" else kind_of(spec)
    return Workload(kind, method, backbones_of(spec), spec.image_size)


class RunCosts:
    """The hours and sizes of runs, from the paper, the shards and finished runs."""

    def __init__(self, plan: Plan, cluster: Cluster, todo: Iterable[PlannedRun]) -> None:
        self.cluster = cluster
        self.measured = of_cluster(cluster)
        self.image_counts: dict[tuple[DatasetRef, int], tuple[int, int, int] | None] = {}
        self.speeds: dict[Workload, tuple[float, str, bool]] = {}
        """Images a second, validation images counted by `VALIDATION_COST`; the devices, and whether all are CPUs."""
        self.sizes: dict[tuple[str, ...], int | None] = {(b.tag,): b.parameters for b in paper.BACKBONES}
        self.gflops = {backbone.tag: backbone.gflops or 0.0 for backbone in paper.BACKBONES}
        self._read_finished(plan, {workload_of(planned.spec) for planned in todo})

    def _read_finished(self, plan: Plan, wanted: set[Workload]) -> None:
        """Take speeds and sizes from a few finished runs of each workload."""
        images: dict[Workload, float] = {}
        seconds: dict[Workload, float] = {}
        devices: dict[Workload, set[str]] = {}
        on_gpus: set[Workload] = set()
        samples: Counter[Workload] = Counter()
        lacking = set(wanted)
        for run, spec in finished_runs(plan, Path(self.cluster.runs), wanted):
            if not lacking:
                break
            workload = workload_of(spec)
            if workload not in lacking:
                continue
            try:
                result = run.result()
                device = files.read_json(run["start"])["hardware"]["device"]
            except (OSError, *UNREADABLE):  # there are others
                continue
            if self.cluster.device not in ("auto", device):
                continue
            validated = 0.0
            if isinstance(spec, FinetuneSpec):
                counts = self.images(spec.dataset, spec.image_size)
                validated = VALIDATION_COST * spec.val_fraction * counts[2] * result.epochs if counts else 0.0
            samples[workload] += 1
            if samples[workload] == SAMPLES:
                lacking.remove(workload)
            images[workload] = images.get(workload, 0.0) + result.images_per_second * result.seconds + validated
            seconds[workload] = seconds.get(workload, 0.0) + result.seconds
            devices.setdefault(workload, set()).add(result.device)
            if device != "cpu":
                on_gpus.add(workload)
            if run["weights"].exists():
                self.sizes.setdefault(workload.backbones, run["weights"].stat().st_size // FLOAT_BYTES)
        self.speeds = {
            workload: (
                images[workload] / seconds[workload],
                " and ".join(sorted(devices[workload])),
                workload not in on_gpus,
            )
            for workload in samples
            if seconds[workload] > 0 and images[workload] > 0
        }

    def images(self, dataset: DatasetRef, size: int) -> tuple[int, int, int] | None:
        """Training images, those of them with labels, and validation images: from the shards, else from the paper."""
        key = dataset, size
        if key not in self.image_counts:
            try:
                counts = counts_of(shards_of(Path(self.cluster.shards), dataset, size=size).manifest)
                train, val = counts["train"], counts["val"]
                self.image_counts[key] = train.images, train.labelled, val.images
            except ValueError:
                published = paper.IMAGES.get(dataset.name)
                self.image_counts[key] = (published[0], published[0], published[1]) if published else None
        return self.image_counts[key]

    def parameters(self, spec: Spec) -> int | None:
        """How many parameters a run trains; None if nothing tells."""
        tags = backbones_of(spec)
        if self.sizes.get(tags) is None:
            sources = spec.arms if isinstance(spec, PretrainSpec) else (spec,)
            sizes = [self._backbone_parameters(source.backbone, source.given) for source in sources]
            self.sizes[tags] = None if None in sizes else sum(size or 0 for size in sizes)
        return self.sizes[tags]

    def _backbone_parameters(self, tag: str, given: StartWeights | None) -> int | None:
        if (tag,) not in self.sizes:
            try:
                self.sizes[tag,] = weights_file(tag, Path(self.cluster.weights), given).stat().st_size // FLOAT_BYTES
            except (OSError, ValueError):
                self.sizes[tag,] = None
        return self.sizes[tag,]

    def hours(self, spec: Spec) -> RunHours:
        """A run's GPU-hours, from the best source that there is."""
        images = self._images_to_process(spec)
        workload = workload_of(spec)
        if images is None:
            return RunHours(0.0, UNKNOWN)
        if workload in self.speeds:
            speed, device, on_cpu = self.speeds[workload]
            return RunHours(images / speed / 3600, f"measured on {device}", on_cpu=on_cpu)
        if speed := self._speed_by_step(spec):
            return RunHours(images / speed / 3600, f"by the measured step of {self.measured.gpu}")
        if speed := self._modelled_speed(spec):
            return RunHours(images / speed / 3600, MODELLED)
        return self.hours_by_table_2(spec)

    def hours_by_table_2(self, spec: Spec) -> RunHours:
        """A run's GPU-hours by the paper's Table 2 alone."""
        images, flops = self._images_to_process(spec), self._flops(spec)
        if images is None or not flops:
            return RunHours(0.0, UNKNOWN)
        standard = {backbone.tag for backbone in paper.STANDARD}
        both = sum(self.gflops[tag] for tag in standard)
        name = spec.dataset.name
        if isinstance(spec, FinetuneSpec) or method_info(spec.method.name).flops == 1.0:  # CASS, and what costs as much
            hours = images * table_2_hours("cass", name) * sum(flops) / both
            same = isinstance(spec, PretrainSpec) and spec.method.name == "cass" and name in paper.IMAGES
            return RunHours(hours, TABLE_2 if same and set(backbones_of(spec)) == standard else DERIVED)
        if spec.method.name in paper.TABLE_2_HOURS:
            hours = images * table_2_hours(spec.method.name, name)
            source = TABLE_2 if name in paper.IMAGES else DERIVED
            return RunHours(hours, source, hours * (1 - sum(flops) / both))
        return RunHours(0.0, UNKNOWN)

    def _speed_by_step(self, spec: Spec) -> float:
        """Images a second at the TFLOP/s that CASS was measured to reach (`make gpu`); 0 if nothing was measured."""
        named = spec.precision if spec.precision != "auto" else self.cluster.precision
        precision = named if named != "auto" else GPU_PRECISIONS.get(self.cluster.gpu_model, "")
        flops = self._passes(spec) * sum(self._flops(spec))
        return self.measured.teraflops.get(precision, 0.0) * 1000 / flops if flops else 0.0

    @staticmethod
    def _passes(spec: Spec) -> float:
        """Passes of an image through each network, forward and backward; 0 if they are not counted."""
        return method_info(spec.method.name).flops or 0.0 if isinstance(spec, PretrainSpec) else 1.0

    def _modelled_speed(self, spec: Spec) -> float:
        """Images a second on the cluster file's GPU, from its peak; 0 if that tells nothing."""
        precision = spec.precision if spec.precision != "auto" else self.cluster.precision
        peak = GPU_PEAKS.get(self.cluster.gpu_model, {}).get(precision, 0.0)
        flops = self._passes(spec) * sum(self._flops(spec))
        part = part_of_peak("float32" if precision == "float32" else "float16")
        return part * peak * 1000 / flops if flops else 0.0

    def _flops(self, spec: Spec) -> list[float]:
        """GFLOP of a training image by backbone; empty if they are not known or the run is on a CPU."""
        flops = [self.gflops.get(tag, 0.0) for tag in backbones_of(spec)]
        known = all(flops) and spec.image_size == paper.IMAGE_SIZE and self.cluster.device != "cpu"
        return flops if known else []

    def _images_to_process(self, spec: Spec) -> float | None:
        """Images that a run trains on in all its epochs, validation images counted by `VALIDATION_COST`."""
        counts = self.images(spec.dataset, spec.image_size)
        if counts is None:
            return None
        train, labelled, val = counts
        if isinstance(spec, PretrainSpec):
            return spec.epochs * min(train, spec.pictures or train)
        if spec.probe:  # at most: runs of one network share its features
            return VALIDATION_COST * (train + val)
        return spec.epochs * (spec.label_fraction * labelled + VALIDATION_COST * spec.val_fraction * val)


def part_of_peak(precision: str) -> float:
    """The middle of `PART_OF_PEAK`, which modelled hours use."""
    return sum(PART_OF_PEAK[precision]) / 2


def table_2_hours(method: str, dataset: str) -> float:
    """GPU-hours of a training image by Table 2; a dataset that is not in it counts as ISIC, the largest."""
    name = dataset if dataset in paper.IMAGES else "isic"
    return paper.TABLE_2_HOURS[method][name] / (paper.TABLE_2_EPOCHS * paper.IMAGES[name][0])


def finished_runs(plan: Plan, runs: Path, wanted: set[Workload]) -> Iterator[tuple[Run, Spec]]:
    """Finished runs that may have a wanted workload: the plan's, then some others whose name fits."""
    for planned in plan.in_state("done"):
        yield planned.run, planned.spec
    marks = {f"-{w.method}-s" if w.kind == "pretrain" else f"-{w.backbones[0].split('.')[0]}-" for w in wanted}
    opened = 0
    for folder in runs.iterdir() if runs.is_dir() else ():
        if opened == MAX_OPENED:
            break
        run = Run(folder)
        if run.id not in plan.runs and any(mark in run.id for mark in marks) and run["result"].exists():
            opened += 1
            try:
                spec = run.spec
            except (OSError, *UNREADABLE):  # deleted meanwhile, or of another version of the code
                continue
            yield run, spec
