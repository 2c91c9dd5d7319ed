"""What the runs still to do in a plan will take, in GPU-hours and disk, before any of them is sent.

Speeds come from finished runs of the same kind under the same folder, else from a model of the cluster file's card,
else from the paper's Table 2; sizes from the paper, finished runs or ImageNet weights. Every number says where it comes
from; what nothing is known of is counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.core import files
from pipeline.data.shards.index import shards_of
from pipeline.jobs.life import gpus
from pipeline.jobs.plan import TO_DO, Plan, PlannedRun
from pipeline.learn.weights import weights_file
from pipeline.runs.cluster import CARDS, Cluster
from pipeline.runs.folder import Run
from pipeline.runs.methods import method_info
from pipeline.runs.spec import DatasetRef, FinetuneSpec, PretrainSpec, Spec, kind_of, method_of
from pipeline.study import paper

TABLE_2, DERIVED, UNKNOWN = "by Table 2", "derived from Table 2 by FLOPs", "unknown"
MODELLED = "modelled"
OF_PEAK = {"float32": (0.4, 0.5), "float16": (0.2, 0.3)}
"""Of a card's peak FLOP/s, what training reaches: where Table 2's CASS lies, and ASSUMED (docs/reproducing.md)."""
CASS_GFLOPS = sum(backbone.gflops or 0.0 for backbone in paper.STANDARD)
CARD = "RTX8000"  # Table 2's; its hours are those of float32 (docs/reproducing.md)
VALIDATED = 1 / 3  # ASSUMED: an image that is only looked at costs the forward third of one that is trained on
LIKE = 3  # finished runs whose speed is averaged
LOOKED_AT = 200  # finished runs outside the plan that are opened in search of such
CHECKPOINTS = 3  # of one run, at the moment when it writes its third (docs/operations.md)
FLOAT = 4  # bytes
DAMAGED = (ValueError, TypeError, KeyError)  # what a file of another version of the code may raise

Work = tuple[str, str, tuple[str, ...], int]
"""Kind, method (of a pretraining run), backbones and image size: what a run's speed depends on, but the device."""


@dataclass
class Hours:
    """GPU-hours of the runs of one kind."""

    hours: float = 0.0
    runs: Counter[str] = field(default_factory=Counter)
    """How many runs' hours come from where: `measured on DEVICE`, `TABLE_2`, `DERIVED` or `UNKNOWN`."""


@dataclass(kw_only=True)
class Estimate:
    """What is expected of the runs of a plan that are still to do."""

    pretrain: Hours = field(default_factory=Hours)
    finetune: Hours = field(default_factory=Hours)
    """At most: a fine-tune may stop early."""
    dino_shared: float = 0.0
    """GPU-hours too many in `pretrain` if Table 2's hours of DINO are those of both backbones, not of each."""
    table_2: float = 0.0
    """GPU-hours by Table 2 of the pretraining runs that are modelled in `pretrain`."""
    card: str = ""
    """The card that is modelled."""
    final_bytes: int = 0
    """Weights, for good; last checkpoints too, where the site keeps them."""
    peak_bytes: int = 0
    """Checkpoints of the runs at work at the same time, beside `final_bytes`."""
    unsized: tuple[str, ...] = ()
    """Backbones whose size nothing tells; their runs are in neither of the two."""
    jobs: int = 1
    """Jobs at the same time."""
    wall_hours: float = 0.0
    """Without the time in the queue, and with never a job's place empty."""
    unit: str = "GPU-hours"


def estimate(plan: Plan, cluster: Cluster) -> Estimate:
    """What a launch would take; failed runs, which wait for `--retry`, are left out."""
    todo = [item for item in plan.runs.values() if item.state in (*TO_DO, "running", "no shards")]
    jobs = cluster.slurm.parallelism if cluster.executor == "slurm" else cluster.jobs or max(1, len(gpus(cluster)))
    out = Estimate(jobs=jobs, card=cluster.card)
    if cluster.device == "cpu":
        out.unit = "hours"
    known = Known(plan, cluster, todo)
    unsized: set[str] = set()
    hours: dict[str, float] = {}
    loads: dict[tuple[str, ...], list[int]] = {}
    for item in todo:
        spec = item.spec
        parameters = known.parameters(spec)
        unsized |= {tag for tag in backbones_of(spec) if parameters is None and known.sizes.get((tag,)) is None}
        saved = ((parameters or 0) + _last_layer(spec)) * FLOAT * _saved(spec)  # a checkpoint
        out.final_bytes += (parameters or 0) * FLOAT * _kept(spec)
        if cluster.keep_state and isinstance(spec, PretrainSpec):
            out.final_bytes += saved
        if item.published_by:  # a milestone: the longer run's hours are its own
            continue
        taken, source, shared = known.hours(spec)
        left = _left(item)
        if source == MODELLED and isinstance(spec, PretrainSpec):
            out.table_2 += left * known.by_table_2(spec)[0]
        kind = out.pretrain if isinstance(spec, PretrainSpec) else out.finetune
        kind.hours += left * taken
        kind.runs[source] += 1
        out.dino_shared += left * shared
        hours[item.run.id] = left * taken
        loads.setdefault(_job(item), []).append(saved * CHECKPOINTS)

    out.unsized = tuple(sorted(unsized))
    # a fan-out has as many runs at work as trials share its GPU, any other job one
    at_once = [sum(sorted(load, reverse=True)[: cluster.trials_per_gpu]) for load in loads.values()]
    out.peak_bytes = sum(sorted(at_once, reverse=True)[:jobs])
    out.wall_hours = max((out.pretrain.hours + out.finetune.hours) / jobs, _longest(todo, hours))
    return out


def _of_peak(precision: str) -> float:
    """The part of a card's peak that is reckoned with."""
    return sum(OF_PEAK[precision]) / 2


def lines(estimate: Estimate) -> list[str]:
    """The estimate as a person reads it; empty when nothing is to do."""
    out = hours_lines(estimate)
    if estimate.final_bytes:
        more = gigabytes(estimate.peak_bytes)
        out.append(f"storage: {gigabytes(estimate.final_bytes)} at the end, {more} more at the peak")
    if estimate.unsized:
        out.append(f"of unknown size, and not in the storage: {', '.join(estimate.unsized)}")
    return out


def hours_lines(estimate: Estimate) -> list[str]:
    """The times of the estimate alone."""
    out = []
    parts = []
    for what, kind in (("of pretraining", estimate.pretrain), ("of fine-tuning at most", estimate.finetune)):
        sources = {source: count for source, count in kind.runs.items() if source != UNKNOWN}
        if sources:
            said = [f"{count} {source}" if len(sources) > 1 else source for source, count in sources.items()]
            parts.append(f"{_number(kind.hours)} {what} ({', '.join(said)})")
    every = estimate.pretrain.runs + estimate.finetune.runs
    if parts:
        out.append(f"{estimate.unit}: {', '.join(parts)}")
    if every[MODELLED]:
        peaks, low_high = CARDS[estimate.card], OF_PEAK["float32"]
        part = " to ".join(f"{share * 100:.0f}" for share in low_high)
        printed = 1 / _table_2("cass", "isic") / 3600
        modelled = " to ".join(f"{share * peaks['float32'] * 1000 / CASS_GFLOPS:.0f}" for share in low_high)
        used = ", ".join(f"{_of_peak(kind) * 100:.0f} % of {peaks[kind]:g} TFLOP/s in {kind}" for kind in OF_PEAK)
        out += [
            f"  modelled: an {estimate.card} at {used}; finished runs under the same folder replace it",
            f"  at {part} % it makes {modelled} images a second of CASS in float32; Table 2's, on ISIC, makes "
            f"{printed:.0f}"
            + (f"; all pretraining by Table 2: {_number(estimate.table_2)} h" if estimate.table_2 else ""),
        ]
    if every[TABLE_2] + every[DERIVED]:
        out.append(f"  Table 2 is of an {CARD} in float32; finished runs under the same folder replace it")
    if estimate.dino_shared:
        less = _number(estimate.pretrain.hours - estimate.dino_shared)
        out.append(f"  {less} of pretraining if Table 2's hours of DINO are those of both backbones, not of each")
    if every[UNKNOWN]:
        out.append(f"of unknown length: {_runs(every[UNKNOWN])}; nothing like that has finished here yet")
    if parts:
        at_once = f"{estimate.jobs} jobs at once" if estimate.jobs > 1 else "one job at a time"
        out.append(f"wall-clock: {_number(estimate.wall_hours)} h with {at_once}, the queue left out")
    return out


def gigabytes(count: float) -> str:
    """`163 GB`, `0.8 GB`."""
    return f"{_number(count / 1e9)} GB"


def _runs(count: int) -> str:
    return "1 run" if count == 1 else f"{count} runs"


def _number(value: float) -> str:
    if 0 < value < 0.05:
        return "less than 0.1"
    return f"{value:,.0f}" if value >= 9.95 else f"{value:.1f}"


# --- What a run is, for this purpose ---------------------------------------------------------------------------------


def backbones_of(spec: Spec) -> tuple[str, ...]:
    return tuple(arm.backbone for arm in spec.arms) if isinstance(spec, PretrainSpec) else (spec.backbone,)


def work_of(spec: Spec) -> Work:
    method = method_of(spec) if isinstance(spec, PretrainSpec) else ""  # where it starts from does not slow it
    return kind_of(spec), method, backbones_of(spec), spec.image_size


def _kept(spec: Spec) -> int:
    """Copies of its parameters in a finished run's folder: averaged and last weights, else one."""
    return 2 if isinstance(spec, PretrainSpec) and spec.average else 1


def _saved(spec: Spec) -> int:
    """Copies of its parameters in a checkpoint: the weights, Adam's two moments, and what comes on top."""
    if isinstance(spec, FinetuneSpec):
        return 4  # the best so far
    teacher = method_info(spec.method.name).has_teacher
    return 3 + teacher + (spec.average is not None) + spec.keep_gradients


def _last_layer(spec: Spec) -> int:
    """Parameters of DINO's last layer, which is as large as a backbone; its weights file has no such layer."""
    if not isinstance(spec, PretrainSpec) or not method_info(spec.method.name).has_teacher:
        return 0
    options = spec.method.options
    return int(options["out_dim"]) * int(options.get("bottleneck", options["hidden"]))


def _left(item: PlannedRun) -> float:
    """The part of the run that is still to do."""
    if item.state not in ("interrupted", "running") or not (at := item.run.progress()):
        return 1.0
    done: float = (at["epoch"] + at["step"] / max(1, at["steps"])) / at["epochs"]
    return max(0.0, 1 - done)


def _job(item: PlannedRun) -> tuple[str, ...]:
    """Runs with the same value travel in one job: a fan-out is one (dataset, method, arm)."""
    spec = item.spec
    if isinstance(spec, PretrainSpec):
        return (item.run.id,)
    return spec.dataset.name, method_of(spec), spec.arm, spec.backbone


def _longest(items: Iterable[PlannedRun], hours: dict[str, float]) -> float:
    """The longest way through the plan: a fan-out after the longest of the pretraining runs it waits for."""
    items = list(items)
    awaited = {item.run.id: item.published_by or item.run.id for item in items}
    own: dict[tuple[str, ...], float] = {}
    before: dict[tuple[str, ...], float] = {}
    for item in items:
        job = _job(item)
        own[job] = own.get(job, 0.0) + hours.get(item.run.id, 0.0)
        before[job] = max(before.get(job, 0.0), hours.get(awaited.get(item.parent or "", ""), 0.0))
    return max((own[job] + before[job] for job in own), default=0.0)


# --- What is known ---------------------------------------------------------------------------------------------------


class Known:
    """Speeds, sizes and image counts as far as the paper, the shards and finished runs tell them."""

    def __init__(self, plan: Plan, cluster: Cluster, todo: Iterable[PlannedRun]) -> None:
        self.cluster = cluster
        self.images_of: dict[tuple[DatasetRef, int], tuple[int, int, int] | None] = {}
        self.speeds: dict[Work, tuple[float, str]] = {}
        """Images a second, those only looked at counted by `VALIDATED`, and on which devices."""
        self.sizes: dict[tuple[str, ...], int | None] = {(b.tag,): b.parameters for b in paper.BACKBONES}
        self.gflops = {backbone.tag: backbone.gflops or 0.0 for backbone in paper.BACKBONES}
        self._learn(plan, {work_of(item.spec) for item in todo})

    def _learn(self, plan: Plan, wanted: set[Work]) -> None:
        """Take speeds and sizes from a few finished runs of each kind of work that is to do."""
        images: dict[Work, float] = {}
        seconds: dict[Work, float] = {}
        devices: dict[Work, set[str]] = {}
        seen: Counter[Work] = Counter()
        lacking = set(wanted)
        for run, spec in _finished(plan, Path(self.cluster.runs), wanted):
            if not lacking:
                break
            work = work_of(spec)
            if work not in lacking:
                continue
            try:
                result = run.result()
                device = files.read_json(run["start"])["hardware"]["device"]
            except (OSError, *DAMAGED):  # there are others
                continue
            if self.cluster.device not in ("auto", device):
                continue
            looked_at = 0.0
            if isinstance(spec, FinetuneSpec):
                counts = self.images(spec.dataset, spec.image_size)
                looked_at = VALIDATED * counts[2] * result.epochs if counts else 0.0
            seen[work] += 1
            if seen[work] == LIKE:
                lacking.remove(work)
            images[work] = images.get(work, 0.0) + result.images_per_second * result.seconds + looked_at
            seconds[work] = seconds.get(work, 0.0) + result.seconds
            devices.setdefault(work, set()).add(result.device)
            if run["weights"].exists():
                self.sizes.setdefault(work[2], run["weights"].stat().st_size // FLOAT)
        self.speeds = {
            work: (images[work] / seconds[work], " and ".join(sorted(devices[work])))
            for work in seen
            if seconds[work] > 0 and images[work] > 0
        }

    def images(self, dataset: DatasetRef, size: int) -> tuple[int, int, int] | None:
        """Training images, those of them with labels, and validation images; by the shards, else by the paper."""
        key = dataset, size
        if key not in self.images_of:
            try:
                counts = shards_of(Path(self.cluster.shards), dataset, size=size).manifest["counts"]
                train, val = counts["train"], counts["val"]
                self.images_of[key] = train["pictures"], train["pictures"] - train["unlabelled"], val["pictures"]
            except ValueError:
                told = paper.IMAGES.get(dataset.name)
                self.images_of[key] = (told[0], told[0], told[1]) if told else None
        return self.images_of[key]

    def parameters(self, spec: Spec) -> int | None:
        """How many parameters a run trains."""
        tags = backbones_of(spec)
        if self.sizes.get(tags) is None:
            parts = [self._parameters(tag) for tag in tags]
            self.sizes[tags] = None if None in parts else sum(part or 0 for part in parts)
        return self.sizes[tags]

    def _parameters(self, tag: str) -> int | None:
        if (tag,) not in self.sizes:
            try:
                self.sizes[tag,] = weights_file(tag, Path(self.cluster.weights)).stat().st_size // FLOAT
            except (OSError, ValueError):
                self.sizes[tag,] = None
        return self.sizes[tag,]

    def hours(self, spec: Spec) -> tuple[float, str, float]:
        """A run's GPU-hours, where they come from, and how many too many if Table 2's DINO is of both backbones."""
        images = self._to_pass(spec)
        work = work_of(spec)
        if images is None:
            return 0.0, UNKNOWN, 0.0
        if work in self.speeds:
            speed, device = self.speeds[work]
            return images / speed / 3600, f"measured on {device}", 0.0
        if speed := self._modelled(spec):
            return images / speed / 3600, MODELLED, 0.0
        return self.by_table_2(spec)

    def _flops(self, spec: Spec) -> list[float]:
        """GFLOP of a training image by backbone; none where they are not known or no GPU is meant."""
        flops = [self.gflops.get(tag, 0.0) for tag in backbones_of(spec)]
        told = all(flops) and spec.image_size == paper.IMAGE_SIZE and self.cluster.device != "cpu"
        return flops if told else []

    def _modelled(self, spec: Spec) -> float:
        """Images a second on the cluster file's card by its peak; 0 where that tells nothing."""
        precision = spec.precision if spec.precision != "auto" else self.cluster.precision
        peak = CARDS.get(self.cluster.card, {}).get(precision, 0.0)
        more = method_info(spec.method.name).flops or 0.0 if isinstance(spec, PretrainSpec) else 1.0
        flops = more * sum(self._flops(spec))
        part = _of_peak("float32" if precision == "float32" else "float16")
        return part * peak * 1000 / flops if flops else 0.0

    def by_table_2(self, spec: Spec) -> tuple[float, str, float]:
        """As `hours`, by the paper's table alone."""
        images, flops, work = self._to_pass(spec), self._flops(spec), work_of(spec)
        if images is None or not flops:
            return 0.0, UNKNOWN, 0.0
        standard = {backbone.tag for backbone in paper.STANDARD}
        both = sum(self.gflops[tag] for tag in standard)
        name = spec.dataset.name
        if isinstance(spec, FinetuneSpec) or spec.method.name == "cass":
            hours = images * _table_2("cass", name) * sum(flops) / both
            same = isinstance(spec, PretrainSpec) and set(work[2]) == standard and name in paper.IMAGES
            return hours, TABLE_2 if same else DERIVED, 0.0
        if spec.method.name in paper.TABLE_2_HOURS:
            hours = images * _table_2(spec.method.name, name)
            source = TABLE_2 if name in paper.IMAGES else DERIVED
            return hours, source, hours * (1 - sum(flops) / both)
        return 0.0, UNKNOWN, 0.0

    def _to_pass(self, spec: Spec) -> float | None:
        """Images a run trains on in all its epochs, those it only looks at counted by `VALIDATED`."""
        counts = self.images(spec.dataset, spec.image_size)
        if counts is None:
            return None
        train, labelled, val = counts
        if isinstance(spec, PretrainSpec):
            return spec.epochs * min(train, spec.pictures or train)
        return spec.epochs * (spec.label_fraction * labelled + VALIDATED * val)


def _table_2(method: str, dataset: str) -> float:
    """Hours a training image by Table 2; a dataset that is not in it is taken for ISIC, the largest."""
    name = dataset if dataset in paper.IMAGES else "isic"
    return paper.TABLE_2_HOURS[method][name] / (paper.TABLE_2_EPOCHS * paper.IMAGES[name][0])


def _finished(plan: Plan, runs: Path, wanted: set[Work]) -> Iterator[tuple[Run, Spec]]:
    """Finished runs that may be like those wanted: the plan's, then some others whose name says so."""
    for item in plan.runs.values():
        if item.state == "done":
            yield item.run, item.spec
    marks = {f"-{method}-s" if kind == "pretrain" else f"-{tags[0].split('.')[0]}-" for kind, method, tags, _ in wanted}
    opened = 0
    for folder in runs.iterdir() if runs.is_dir() else ():
        if opened == LOOKED_AT:
            break
        run = Run(folder)
        if run.id not in plan.runs and any(mark in run.id for mark in marks) and run["result"].exists():
            opened += 1
            try:
                spec = run.spec
            except (OSError, *DAMAGED):  # deleted meanwhile, or of another version of the code
                continue
            yield run, spec
