"""The model card of an export, made from the run and nothing else."""

from __future__ import annotations

import json
from typing import Any

from pipeline.data.datasets import DATASETS
from pipeline.learn.weights import imagenet_tags
from pipeline.models.info import About
from pipeline.runs.folder import Result, Run
from pipeline.runs.spec import FinetuneSpec, PretrainSpec, Spec, method_of

LIMITS = """\
For research: to repeat this run's scores, to compare methods, to start other training from. **It is no medical device**
and was examined by no regulator; nobody's diagnosis or treatment may rest on it.

- It knows images like those it was trained on. Another camera, scanner, stain, clinic or population changes its
  scores, and nothing warns of it.
- It answers every image with one of its classes, also one that shows none of them.
- Scores are sigmoids trained with focal loss, not calibrated probabilities; those of one image need not add up to 1.
- The metrics above are of one split of one dataset. Images of one patient may lie on both sides of it, unless the
  dataset names its patients and was split by them."""

FEATURE_LIMITS = """\
For research: to be fine-tuned on labelled images of the same kind. It names no classes by itself. **It is no medical
device** and was examined by no regulator; nobody's diagnosis or treatment may rest on what is built from it."""


def text(run: Run, about: About, *, with_onnx: bool) -> str:
    """The card as Markdown, headed by the front matter that model hubs read."""
    spec, result = run.spec, run.result()
    parts = [
        _front(about),
        f"# {run.id}" + (f", arm `{about.network}`" if isinstance(spec, PretrainSpec) else ""),
        _what(spec, about),
        "## Use",
        _use(about, with_onnx=with_onnx),
        "## Scores of the test part" if about.classes else "## At the end of training",
        _metrics(result, about),
        "## Intended use and limits",
        LIMITS if about.classes else FEATURE_LIMITS,
        "## Training data",
        _data(spec),
        "## How it was made",
        _made(result, about),
        "The whole experiment:",
        f"```json\n{json.dumps(about.spec, indent=2, ensure_ascii=False)}\n```",
    ]
    return "\n\n".join(parts) + "\n"


def _front(about: About) -> str:
    kind = "image-classification" if about.classes else "image-feature-extraction"
    return f"---\nlibrary_name: timm\npipeline_tag: {kind}\ntags:\n- timm\n- {kind}\n- medical\n---"


def _what(spec: Spec, about: About) -> str:
    rows: list[tuple[str, object]] = [("network", f"{about.backbone} (timm)"), ("dataset", spec.dataset.name)]
    if isinstance(spec, FinetuneSpec):
        rows += [
            ("task", f"{about.task}: {', '.join(about.classes)}"),
            ("starts from", _method(spec)),
            ("labels", f"{spec.label_fraction * 100:g} % of the training part's"),
        ]
    else:
        rows += [("task", "features; the head of pretraining is left out"), ("pretrained with", _method(spec))]
    rows += [("seed", spec.seed), ("pictures", f"{about.image_size} × {about.image_size} pixels, RGB")]
    return _table(["", ""], [[name, str(value)] for name, value in rows])


def _method(spec: Spec) -> str:
    pretrain = spec if isinstance(spec, PretrainSpec) else spec.pretrain
    if pretrain is None:
        return "ImageNet weights (supervised)" if imagenet_tags(spec) else "random weights (supervised)"
    start = "ImageNet" if imagenet_tags(pretrain) else "random"
    return (
        f"{method_of(spec).upper()}, self-supervised, {pretrain.epochs} epochs from {start} weights on "
        f"{pretrain.dataset.name}, arms {', '.join(arm.backbone for arm in pretrain.arms)}"
    )


def _use(about: About, *, with_onnx: bool) -> str:
    """Three lines to load it, and what its outputs mean."""
    out = [
        "```python\n"
        "import timm\n"
        'model = timm.create_model("local-dir:FOLDER", pretrained=True).eval()\n'
        "transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)\n"
        "```",
        "FOLDER is where this file lies. `transform` takes an upright RGB image (PIL) and squashes it to that size.",
    ]
    if about.classes:
        decided = "the highest" if about.task == "multi-class" else "each one above 0.5"
        out.append(
            '`model(transform(image.convert("RGB"))[None]).sigmoid()` are the scores of '
            f"`model.pretrained_cfg['label_names']`; {decided} is the prediction."
        )
    else:
        out.append(
            '`model(transform(image.convert("RGB"))[None])` are the features; '
            "`create_model(…, num_classes=N)` adds a fresh head for N classes."
        )
    if with_onnx:
        name = "logits" if about.classes else "features"
        out.append(
            f"`model.onnx` is the same network: `images` [n, 3, {about.image_size}, {about.image_size}], prepared by "
            f"`transform`, to `{name}`, for any n."
        )
    return "\n\n".join(out)


def _metrics(result: Result, about: About) -> str:
    found = result.metrics
    per_class: dict[str, dict[str, Any]] = found.get("per_class") or {}
    majority: dict[str, float] = found.get("majority") or {}
    head = ["", "this network", *(["always the commonest class"] if majority else [])]
    rows = [
        [name, _number(value), *([_number(majority.get(name))] if majority else [])]
        for name, value in found.items()
        if name not in ("per_class", "majority")
    ]
    out = [_table(head, rows)]
    if per_class:
        names = list(next(iter(per_class.values())))
        body = [[name, *(_number(row[key]) for key in names)] for name, row in per_class.items()]
        out.append(_table(["class", *names], body))
    if about.classes:
        out.append("f1_micro and recall_micro decide every class at 0.5, the others by the prediction as above.")
    elif collapsed := result.notes.get("collapsed"):
        out.append(f"**Collapsed**: {', '.join(collapsed)} gave nearly the same outputs for every image.")
    return "\n\n".join(out)


def _data(spec: Spec) -> str:
    refs = {spec.dataset.name: spec.dataset}
    if isinstance(spec, FinetuneSpec) and spec.pretrain is not None:
        refs[spec.pretrain.dataset.name] = spec.pretrain.dataset
    out = []
    for name, ref in refs.items():
        hint = "Images of one's own; their licence is their owner's to say."
        if name in DATASETS.names():
            hint = DATASETS.find(name).DATASET.obtain
        out.append(f"`{name}`, fingerprint `{ref.fingerprint}` (sources, labels, splits, size, codec). {hint}")
    for tag in sorted(imagenet_tags(spec if isinstance(spec, PretrainSpec) else spec.pretrain or spec)):
        out.append(f"Training began from timm's weights `{tag}`, which have a licence of their own.")
    out.append("Whether a network may be passed on is also for the licences of the images it was trained on to say.")
    return "\n\n".join(out)


def _made(result: Result, about: About) -> str:
    rows: list[tuple[str, object]] = [
        ("run", about.run),
        ("weights file, SHA-256", about.weights_sha256),
        ("epochs", result.epochs),
        ("seconds", f"{result.seconds:.0f}"),
        ("device", f"{result.device}, {result.precision}, {result.threads} threads"),
        ("code", f"CASS-Pipeline {result.code}"),
        ("libraries", ", ".join(f"{name} {version}" for name, version in result.versions.items())),
    ]
    if result.best_epoch is not None:
        rows.insert(3, ("best epoch (from 0)", result.best_epoch))
    return _table(["", ""], [[name, str(value)] for name, value in rows])


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in [head, *rows]]
    return "\n".join([lines[0], "|" + "---|" * len(head), *lines[1:]])


def _number(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return "–" if value is None else str(value)
    return str(value) if isinstance(value, int) else f"{value:.4f}"
