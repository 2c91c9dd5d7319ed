"""What each kind of run takes of a GPU's memory, counted on pretended tensors: a table in the package, and a cache.

    python -m pipeline.jobs.footprints GRID …         count every kind of run of these grids, and write the table

Counting takes some ten seconds a kind (pipeline/rehearsal), so what is not in the table is counted once and kept in the
user's cache.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pipeline.core import files
from pipeline.core.console import progress
from pipeline.jobs.costs import backbones_of
from pipeline.runs.identity import from_json, to_json
from pipeline.runs.spec import FinetuneSpec, PretrainSpec, Spec, method_of

TABLE = Path(__file__).with_suffix(".json")
BATCH = 16  # that is counted; what it adds is proportional to the batch, but for some 10 MB
SHAPING = ("out_dim", "hidden", "layers", "bottleneck", "local_crops", "local_side", "head_dim")
"""Options of methods that change the size of what is kept."""
PRECISIONS = {"float32": "float32", "float16": "16 bit", "bfloat16": "16 bit"}
PLAIN_ATTENTION = "plain attention"


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """Device bytes at a run's peak, by what they are for, in the last part of the run."""

    weights: int
    """Of students and teachers, with all buffers."""
    optimizer: int
    averages: int
    """Averaged weights, or a fine-tune's best ones so far."""
    per_image: int
    """Activations and temporaries. Gradients replace them in the backward pass, so the peak has next to none."""
    evaluation: int | None = None
    """Between the epochs and at the end: gradients and what averaging, validation, probes and batch-norm statistics
    take. Their batches are the same for all runs. None: not counted."""
    state: int
    """Host bytes of a copy of a checkpoint in page-locked memory, which torch rounds up to powers of two a tensor."""

    @property
    def fixed(self) -> int:
        return self.weights + self.optimizer + self.averages

    def of_step(self, batch: int) -> int:
        """Bytes at the peak of a step with so many images; gradients take no more than the weights."""
        return self.fixed + max(self.per_image * batch, self.weights)

    def at(self, batch: int, *, cuda_graphs: bool = False) -> int:
        """Bytes at a run's peak; a CUDA graph keeps the memory of its step at all times."""
        evaluation = self.evaluation or 0
        return self.of_step(batch) + evaluation if cuda_graphs else max(self.of_step(batch), self.fixed + evaluation)


def key_of(spec: Spec, precision: str, *, plain: bool = False) -> str:
    """What a run's memory depends on apart from its batch, as text; `precision` is not `auto`.

    The optimizer is not in it: all count as Adam, which keeps the most. `plain`: attention keeps its matrix, as in the
    paper's torch.
    """
    parts = [method_of(spec) if isinstance(spec, PretrainSpec) else "fine-tune", "+".join(backbones_of(spec))]
    parts += [f"{spec.image_size} px", PRECISIONS[precision]]
    if isinstance(spec, PretrainSpec):
        parts += ["averaged"] * (spec.average is not None)
        parts += ["kept gradients"] * spec.keep_gradients
        parts += [f"{name} {value}" for name, value in sorted(spec.method.options.items()) if name in SHAPING]
    return ", ".join(parts + [PLAIN_ATTENTION] * plain)


def is_counted(spec: Spec) -> bool:
    """Whether the spec trains anything; a frozen network takes less than its fine-tune."""
    return method_of(spec) != "frozen"


def known() -> Mapping[str, Footprint]:
    """Every footprint of the package's table and of the user's cache, by key."""
    return {**read(cache_path()), **_table()}


@cache
def _table() -> Mapping[str, Footprint]:
    return read(TABLE)


def read(path: Path) -> dict[str, Footprint]:
    """The footprints in a file; none where there is no such file or it is of another version of the code."""
    try:
        return {key: Footprint(**value) for key, value in files.read_json(path, dict).items()}
    except (OSError, ValueError, TypeError):
        return {}


def cache_path() -> Path:
    """The user's cache; another torch or timm may take other memory."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cass-pipeline"
    return folder / f"footprints-torch-{_version('torch')}-timm-{_version('timm')}.json"


def _version(name: str) -> str:
    """The version of a package; `none` where it is not installed, as torch may be on a login node."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"


def write(path: Path, more: Mapping[str, Footprint]) -> None:
    """Add footprints to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    every = {**read(path), **more}
    files.write_json(path, {key: asdict(every[key]) for key in sorted(every)}, durable=False)


def count_missing(wanted: Iterable[tuple[Spec, str]]) -> list[str]:
    """Count what is not known of these specs and precisions, in a process of its own, and add it to the cache.

    Returns what could not be counted, a line each.
    """
    found = known()
    lacking = {key_of(spec, precision): [to_json(spec), precision] for spec, precision in wanted}
    lacking = {key: value for key, value in lacking.items() if key not in found}
    if not lacking:
        return []
    command = [sys.executable, "-m", "pipeline.jobs.footprints", "--to", str(cache_path())]
    done = subprocess.run(
        command, input=json.dumps(list(lacking.values())), stdout=subprocess.PIPE, text=True, env=_environment()
    )
    found = known()
    lines = [line for line in done.stdout.splitlines() if line.partition(": ")[0] in lacking]
    reasons = {key: reason for key, _, reason in (line.partition(": ") for line in lines)}
    unknown = f"its process ended with code {done.returncode}"
    left = [key for key in lacking if key not in found]
    return [f"the memory of {key} could not be counted: {reasons.get(key, unknown)}" for key in left]


def _environment() -> dict[str, str]:
    """This process's environment with this package on the path, without a GPU: the device is pretended."""
    path = os.pathsep.join(filter(None, (str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": ""}


# --- Counting: imports torch -----------------------------------------------------------------------------------------


def count(spec: Spec, precision: str, *, plain: bool = False) -> Footprint:
    """Count a step and an evaluation of the spec on pretended tensors."""
    from pipeline.rehearsal.cuda import Gpu
    from pipeline.rehearsal.evaluation import rehearse_evaluation
    from pipeline.rehearsal.steps import rehearse_step

    capability = (8, 0) if precision == "bfloat16" else (7, 5)
    gpu = Gpu(capability=capability, attention="math" if plain else "efficient")
    counted = _with_adam(replace(spec, batch_size=BATCH))
    peak = rehearse_step(counted, precision=precision, gpu=gpu).peak
    kept = {kind: peak[kind] for kind in ("weights", "optimizer", "averages")}
    per_image = -(-(sum(peak.values()) - sum(kept.values())) // BATCH)
    evaluation = rehearse_evaluation(counted, precision=precision, gpu=gpu)
    beyond = sum(evaluation.values()) - kept["weights"] - kept["averages"]
    return Footprint(**kept, per_image=per_image, evaluation=beyond, state=state_bytes(spec))


def _with_adam(spec: Spec) -> Spec:
    """The spec with Adam in place of SGD, whose fused form cannot be pretended."""
    if isinstance(spec, FinetuneSpec):
        return replace(spec, optim=replace(spec.optim, name="adam"))
    arms = (replace(arm, optim=replace(arm.optim, name="adam")) for arm in spec.arms if arm.optim.name == "sgd")
    changed = {arm.name: arm for arm in arms}
    return replace(spec, arms=tuple(changed.get(arm.name, arm) for arm in spec.arms))


def state_bytes(spec: Spec) -> int:
    """Host bytes of a checkpoint's copy, each tensor rounded up to a power of two."""
    import torch

    from pipeline.jobs.estimate import copies_in_checkpoint, last_layer
    from pipeline.learn import backbones

    sizes = [4 * last_layer(spec)]
    for tag in backbones_of(spec):
        with torch.device("meta"):
            network = backbones.from_file(tag, None, outputs=1000, image_size=spec.image_size)
        sizes += [parameter.nbytes for parameter in network.parameters()]
    return copies_in_checkpoint(spec) * sum(1 << (size - 1).bit_length() for size in sizes if size)


def wanted_by(grids: Iterable[str]) -> list[tuple[Spec, str, bool]]:
    """Every kind of run of these grids in 16 bit, and the paper's standard run in float32 and with plain attention."""
    from pipeline.jobs.plan import make_plan
    from pipeline.runs.cluster import Cluster
    from pipeline.study import paper, recipes

    plans = [make_plan(grid, Cluster()) for grid in grids]
    specs = [planned.spec for plan in plans for planned in plan.runs.values() if is_counted(planned.spec)]
    kinds = {key_of(spec, "float16"): spec for spec in specs}
    standard = recipes.cass(specs[0].dataset, preset=paper.preset("paper"), seed=0)
    compared = [(standard, "float32", False), (standard, "float32", True), (standard, "float16", True)]
    return [*((spec, "float16", False) for spec in kinds.values()), *compared]


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["--to"]:
        path = Path(arguments[1])
        wanted = [(from_json(value), precision, False) for value, precision in json.load(sys.stdin)]
    else:
        path, wanted = TABLE, wanted_by(arguments)
    failed = 0
    for spec, precision, plain in progress(wanted, total=len(wanted), what="kinds of run"):
        key = key_of(spec, precision, plain=plain)
        if path == TABLE and key in read(path) and read(path)[key].evaluation is not None:
            continue
        try:
            write(path, {key: count(spec, precision, plain=plain)})
        except (ValueError, RuntimeError, TypeError, ImportError) as error:
            failed += 1
            print(f"{key}: {error}".splitlines()[0], flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
