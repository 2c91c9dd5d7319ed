"""The model card of an export, made from the run alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipeline.core.console import counted, markdown
from pipeline.data.datasets import DATASETS
from pipeline.data.shards import facts
from pipeline.data.shards.counts import counts_of
from pipeline.data.shards.index import shards_of
from pipeline.learn import calibration
from pipeline.learn.weights import start_weights
from pipeline.models.info import ModelInfo
from pipeline.runs.folder import Run
from pipeline.runs.result import Result
from pipeline.runs.spec import DatasetRef, FinetuneSpec, PretrainSpec, Spec, method_of

LIMITS = """\
For research: to repeat this run's scores, to compare methods, or to start other training.
**It is not a medical device**, and no regulator has examined it. Do not base a diagnosis or a treatment on it.

- It works on images like those it was trained on. Another camera, scanner, stain, clinic or population changes its
  scores, and nothing warns you.
- It scores every image for these classes, even an image that shows none of them.
- Scores are sigmoids trained with focal loss, not probabilities; those of one image need not add up to 1. Calibrated
  ones, where the section above has a temperature, are right on average on images like the validation images.
- The metrics above are of one split of one dataset. What training and test part share is in the section on data below;
  images of one patient may be in both, unless the dataset names its patients and was split by them."""

FEATURE_LIMITS = """\
For research: to be fine-tuned on labelled images of the same kind. It predicts no classes by itself.
**It is not a medical device**, and no regulator has examined it. Do not base a diagnosis or a treatment on what is
built from it."""


def text(run: Run, info: ModelInfo, *, with_onnx: bool, shards: Path) -> str:
    """The model card as Markdown; it starts with the front matter that model hubs read. shards: the folder of all."""
    spec, result = run.spec, run.result()
    parts = [
        _front(info),
        f"# {markdown(run.id)}" + (f", arm `{info.network}`" if isinstance(spec, PretrainSpec) else ""),
        _what(spec, info),
        "## Use",
        _use(info, with_onnx=with_onnx),
        "## Scores of the test part" if info.classes else "## At the end of training",
        _metrics(result, info),
        "## Intended use and limits",
        LIMITS if info.classes else FEATURE_LIMITS,
        "## Training data",
        _data(spec, shards),
        "## How it was made",
        _made(result, info),
        "The whole spec:",
        f"```json\n{json.dumps(info.spec, indent=2, ensure_ascii=False)}\n```",
    ]
    return "\n\n".join(parts) + "\n"


def _front(info: ModelInfo) -> str:
    kind = "image-classification" if info.classes else "image-feature-extraction"
    return f"---\nlibrary_name: timm\npipeline_tag: {kind}\ntags:\n- timm\n- {kind}\n- medical\n---"


def _what(spec: Spec, info: ModelInfo) -> str:
    rows: list[tuple[str, object]] = [("network", f"{info.backbone} (timm)"), ("dataset", spec.dataset.name)]
    if isinstance(spec, FinetuneSpec):
        rows += [
            ("task", f"{info.task}: {', '.join(info.classes)}"),
            ("starts from", _method(spec)),
            ("labels", f"{spec.label_fraction * 100:g} % of the training part's"),
        ]
    else:
        rows += [("task", "features; the head of pretraining is left out"), ("pretrained with", _method(spec))]
    rows += [("seed", spec.seed), ("images", f"{info.image_size} × {info.image_size} pixels, RGB")]
    return _table(["", ""], [[name, str(value)] for name, value in rows])


def _method(spec: Spec) -> str:
    pretrain = spec if isinstance(spec, PretrainSpec) else spec.pretrain
    if pretrain is None:
        return f"{_start(spec)} (supervised)"
    return (
        f"{method_of(spec).upper()}, self-supervised, {counted(pretrain.epochs, 'epoch')} from {_start(pretrain)} on "
        f"{pretrain.dataset.name}, arms {', '.join(arm.backbone for arm in pretrain.arms)}"
    )


def _start(spec: Spec) -> str:
    """`random weights`, or the names of the weights that a run itself starts from."""
    return " and ".join(f"the weights {name}" for name in start_weights(spec)) or "random weights"


def _use(info: ModelInfo, *, with_onnx: bool) -> str:
    """Three lines to load it, and what its outputs mean."""
    out = [
        "```python\n"
        "import timm\n"
        'model = timm.create_model("local-dir:FOLDER", pretrained=True).eval()\n'
        "transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)\n"
        "```",
        "FOLDER is the folder of this file. `transform` takes an upright RGB image (PIL) and squashes it to that size.",
    ]
    if info.classes:
        decided = "the highest" if info.task == "multi-class" else "each one above 0.5"
        out.append(
            '`model(transform(image.convert("RGB"))[None]).sigmoid()` are the scores of '
            f"`model.pretrained_cfg['label_names']`; {decided} is the prediction."
        )
    else:
        out.append(
            '`model(transform(image.convert("RGB"))[None])` are the features; '
            "`create_model(…, num_classes=N)` adds a new head for N classes."
        )
    if with_onnx:
        name = "logits" if info.classes else "features"
        out.append(
            f"`model.onnx` is the same network: input `images` [n, 3, {info.image_size}, {info.image_size}], prepared "
            f"by `transform`, output `{name}`, for any n."
        )
    return "\n\n".join(out)


def _metrics(result: Result, info: ModelInfo) -> str:
    found = result.metrics
    per_class: dict[str, dict[str, Any]] = found.get("per_class") or {}
    majority: dict[str, float] = found.get("majority") or {}
    head = ["", "this network", *(["always the most frequent class"] if majority else [])]
    rows = [
        [name, _number(value), *([_number(majority.get(name))] if majority else [])]
        for name, value in found.items()
        if name not in ("per_class", "majority", "probes")
    ]
    out = [_table(head, rows)]
    if per_class:
        names = list(next(iter(per_class.values())))
        body = [[name, *(_number(row[key]) for key in names)] for name, row in per_class.items()]
        out.append(_table(["class", *names], body))
    if probes := result.probes:
        start, end = probes["start"], probes["end"]
        body = [[name, _number(start.get(name)), _number(value)] for name, value in end.items()]
        out.append(f"Frozen features of its arms, {probes['metric']}, before pretraining and after it:")
        out.append(_table(["probe", "start", "end"], body))
    if info.classes:
        out.append("f1_micro and recall_micro decide each class at 0.5; the others use the prediction as above.")
        out.append(_calibration(result, info))
    elif collapsed := result.collapsed:
        out.append(f"**Collapsed**: {markdown(', '.join(collapsed))} gave nearly the same outputs for every image.")
    return "\n\n".join(out)


def _calibration(result: Result, info: ModelInfo) -> str:
    if (temperature := result.temperature) is None:
        return "Temperature for calibrated scores: not known; an earlier version trained this network."
    images = counted(result.notes["calibration"]["images"], "validation image")
    link = "softmax(-1)" if info.task == "multi-class" else "sigmoid()"
    return (
        f"Temperature T = {temperature:.4f}, fitted on {images}: `(logits / T).{link}` are calibrated scores, which "
        f"`pipeline.predict --calibrated` gives{calibration.undetermined(temperature)}."
    )


def _data(spec: Spec, shards: Path) -> str:
    refs = {spec.dataset.name: spec.dataset}
    if isinstance(spec, FinetuneSpec) and spec.pretrain is not None:
        refs[spec.pretrain.dataset.name] = spec.pretrain.dataset
    out = []
    for name, ref in refs.items():
        hint = "Images of the user's own; ask their owner for the licence."
        if name in DATASETS.names():
            hint = DATASETS.find(name).DATASET.obtain
        out.append(f"`{name}`, fingerprint `{ref.fingerprint}` (sources, labels, splits, size, codec). {hint}")
        out += _images(ref, spec.image_size, shards)
    out += _weights_texts(spec if isinstance(spec, PretrainSpec) else spec.pretrain or spec)
    out.append("Whether you may pass the network on also depends on the licences of the images it was trained on.")
    return "\n\n".join(out)


def _weights_texts(spec: Spec) -> list[str]:
    """A sentence or two for all weights that training started from."""
    out = []
    for name, given in sorted(start_weights(spec).items()):
        if given is None:
            out.append(f"Training started from timm's weights `{name}`, which have a licence of their own.")
            continue
        size = f", trained on images of {given.input_size} pixels" if given.input_size else ""
        mean, std = (", ".join(f"{value:g}" for value in values) for values in given.normalisation)
        out.append(
            f"Training started from the weights `{markdown(name)}`: SHA-256 `{given.sha256}`, licence: "
            f"{markdown(given.licence)}{size}. They want images with the mean {mean} subtracted, divided by {std}."
        )
    return out


def _images(ref: DatasetRef, size: int, root: Path) -> list[str]:
    """What the shards of a dataset say of its images, where they are still there."""
    try:
        shards = shards_of(root, ref, size=size)
        lines = facts.lines(shards)
    except (ValueError, FileNotFoundError):
        return ["Its shards were not at hand when this was written, so its images are not counted here."]
    counts = counts_of(shards.manifest)
    rows = [[str(value) for value in row] for row in facts.count_rows(counts)]
    return [_table(["images", *counts], rows), "\n".join(f"- {markdown(line)}" for line in lines)]


def _made(result: Result, info: ModelInfo) -> str:
    rows: list[tuple[str, object]] = [
        ("run", info.run),
        ("weights file, SHA-256", info.weights_sha256),
        ("epochs", result.epochs),
        ("seconds", f"{result.seconds:.0f}"),
        ("device", f"{result.device}, {result.precision}, {counted(result.threads, 'thread')}"),
        ("code", f"CASS-Pipeline {result.code}"),
        ("libraries", ", ".join(f"{name} {version}" for name, version in result.versions.items())),
    ]
    if result.best_epoch is not None:
        rows.insert(3, ("best epoch (from 0)", result.best_epoch))
    return _table(["", ""], [[name, str(value)] for name, value in rows])


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(map(markdown, line)) + " |" for line in [head, *rows]]
    return "\n".join([lines[0], "|" + "---|" * len(head), *lines[1:]])


def _number(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return "–" if value is None else str(value)
    return str(value) if isinstance(value, int) else f"{value:.4f}"
