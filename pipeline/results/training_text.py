"""What specs say of training, as sentences: augmentation, pretraining, fine-tuning, frozen features."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence

from pipeline.core.console import counted
from pipeline.runs.methods import method_info
from pipeline.runs.spec import Arm, Augment, FinetuneSpec, Jitter, Loss, Optim, PretrainSpec, Spec


def each_of(values: Iterable[str]) -> str:
    """`a`, `a and b`, `a, b and c`; each value once."""
    *rest, end = list(dict.fromkeys(values)) or [""]
    return f"{', '.join(rest)} and {end}" if rest else end


def sentence(text: str) -> str:
    """With a capital and a full stop."""
    return text[:1].upper() + text[1:] + "."


def augmentation(specs: Sequence[PretrainSpec | FinetuneSpec]) -> str:
    users: dict[Augment, list[str]] = {}
    for spec in specs:
        what = "fine-tuning" if isinstance(spec, FinetuneSpec) else f"pretraining with {_title(spec)}"
        users.setdefault(spec.augment, []).append(what)
    return " ".join(f"{sentence(f'in {each_of(names)}: {_changes(one)}')}" for one, names in users.items())


def _changes(augment: Augment) -> str:
    steps = [_jitter(augment.first_jitter)]
    steps += [_jitter(augment.second_jitter)] if augment.second_jitter != augment.first_jitter else []
    if augment.second_jitter == augment.first_jitter and augment.first_jitter.p:
        steps[0] += ", twice"
    if augment.perspective_p:
        steps.append(
            f"where the first jitter was applied a perspective warp of {augment.perspective:g} (probability "
            f"{augment.perspective_p:g})"
        )
    if augment.degrees:
        steps.append(f"where the second was, a rotation within ±{augment.degrees:g}°")
    steps += [f"loss of colour (probability {augment.grey:g})"] if augment.grey else []
    if blur := augment.blur:
        steps.append(f"Gaussian blur (probability {blur.p:g}, σ {blur.least:g} to {blur.most:g} pixels)")
    steps += [f"solarisation (probability {augment.solarise:g})"] if augment.solarise else []
    flips = {"horizontal": augment.horizontal_flip, "vertical": augment.vertical_flip}
    steps += [f"{name} flip (probability {p:g})" for name, p in flips.items() if p]
    mean, std = (", ".join(f"{value:g}" for value in values) for values in (augment.mean, augment.std))
    return f"{'; '.join(filter(None, steps))}; then the mean {mean} was subtracted and the result divided by {std}"


def _jitter(jitter: Jitter) -> str:
    if not jitter.p:
        return ""
    strengths = {name: getattr(jitter, name) for name in ("brightness", "contrast", "saturation", "hue")}
    said = ", ".join(f"{name} {value:g}" for name, value in strengths.items() if value)
    return f"colour jitter (probability {jitter.p:g}; {said})"


DONE = {
    "cass": "two networks saw the same augmented image; the loss was 2 − 2·cos of their outputs",
    "cass_vc": "as CASS, with added terms for the variance and the covariance of each network's outputs over a batch",
    "cass_shuffled": "a control: as CASS, but the second network saw another image of the batch",
    "bn_only": "a control: forward passes without a step, which change the statistics of batch norm alone",
    "dino": "self-distillation of one network with a moving average of itself, after vit-pytorch",
    "dino_fb": "self-distillation of one network with a moving average of itself, by its authors' recipe",
}
"""What a method does, in a sentence."""


def _title(spec: PretrainSpec) -> str:
    return method_info(spec.method.name).title


def _alike(specs: Iterable[Spec], common: Callable[[Spec], Spec]) -> list[tuple[Spec, list[Spec]]]:
    """The specs in groups that have the same `common` part. Options make specs unhashable, so they are compared."""
    out: list[tuple[Spec, list[Spec]]] = []
    for spec in specs:
        key = common(spec)
        group = next((members for known, members in out if known == key), None)
        if group is None:
            out.append((key, group := []))
        group.append(spec)
    return out


def pretraining(specs: Sequence[PretrainSpec]) -> str:
    out = []
    if specs:
        out.append("Pretraining used the training images without their labels.")
    for spec, _ in _alike(specs, lambda spec: dataclasses.replace(spec, dataset=specs[0].dataset, seed=0)):
        assert isinstance(spec, PretrainSpec)
        images = f" on {spec.pictures:,} of the images, drawn by the seed," if spec.pictures else ""
        text = f"{_title(spec)} ({DONE.get(spec.method.name, 'see its plugin')}):{images} "
        text += f"{counted(spec.epochs, 'epoch')} with batches of {spec.batch_size}; {'; '.join(map(_arm, spec.arms))}"
        if options := spec.method.options:
            text += f"; options {', '.join(f'{name} {_plain(value)}' for name, value in options.items())}"
        if spec.average:
            text += f"; weights were averaged over the ends of the epochs from {100 * spec.average.start:g} % on"
        text += "; gradients were never set to zero between steps" if spec.keep_gradients else ""
        out.append(sentence(text))
    return " ".join(out)


def _plain(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _arm(arm: Arm) -> str:
    start = {"random": "random weights", "imagenet": "timm's ImageNet weights"}.get(arm.weights, "")
    start = start or f"the weights {arm.given.name if arm.given else '?'}"
    return f"{arm.name} arm {arm.backbone} from {start}, {_optim(arm.optim)}"


def _optim(optim: Optim) -> str:
    name = {"adam": "Adam", "adamw": "AdamW", "sgd": "SGD"}[optim.name]
    rate = f"rate {optim.lr:g}"
    if optim.schedule == "cosine":
        rate += f", swinging along a cosine to {optim.min_lr:g} and back with a half-period of "
        rate += counted(optim.t_max, optim.unit)
    elif optim.schedule == "once":
        rise = f" after a rise over the first {100 * optim.warmup:g} % of the run" if optim.warmup else ""
        rate += f", falling along half a cosine to {optim.min_lr:g}{rise}"
    extra = {"momentum": optim.momentum, "weight decay": optim.weight_decay, "gradient norm at most": optim.clip}
    return f"{name} ({rate}{''.join(f', {word} {value:g}' for word, value in extra.items() if value)})"


def _loss(loss: Loss) -> str:
    weights = {
        "none": "no class weights",
        "inverse": f"rare classes weighing more, by the inverse of their counts in {loss.counted}",
        "minmax": f"common classes weighing more, by their counts in {loss.counted} scaled to 0.2 to 1",
    }
    return f"sigmoid focal loss (α {loss.alpha:g}, γ {loss.gamma:g}; {weights[loss.class_weights]})"


def finetuning(specs: Sequence[FinetuneSpec]) -> str:
    out = []

    def settings(spec: Spec) -> Spec:
        """Without what the rest of the section says: data, labels, network, start, augmentation."""
        assert isinstance(spec, FinetuneSpec)
        first = specs[0]
        spec = dataclasses.replace(spec, weights="random", given=None, pretrain=None)
        spec = dataclasses.replace(spec, seed=0, label_fraction=1.0, val_fraction=1.0)
        return dataclasses.replace(spec, dataset=first.dataset, augment=first.augment, backbone="", arm="")

    for spec, members in _alike(specs, settings):
        assert isinstance(spec, FinetuneSpec)
        networks = each_of(each.backbone for each in members if isinstance(each, FinetuneSpec))
        stop = "epochs without a new lowest validation loss" if spec.stopping == "best" else "rises of the loss in turn"
        out.append(
            f"All weights of {networks} were trained with batches of {spec.batch_size} for at most "
            f"{counted(spec.epochs, 'epoch')}, or until {spec.patience} {stop}; {_loss(spec.loss)}; "
            f"{_optim(spec.optim)}. The weights with the lowest validation loss were kept and tested once."
        )
    if any(spec.pretrain is None for spec in specs):
        start = {"random": "random weights", "imagenet": "timm's ImageNet weights"}
        starts = each_of(
            start.get(spec.weights) or f"the weights {spec.given.name if spec.given else '?'}"
            for spec in specs
            if spec.pretrain is None
        )
        out.append(f"Supervised training is the same from {starts}, without pretraining.")
    return " ".join(out)


def frozen(specs: Sequence[FinetuneSpec]) -> str:
    if not specs:
        return ""
    titles = {"knn": "k-NN (20 neighbours by cosine)", "linear": "logistic regression on standardised features"}
    return (
        f"Features of networks that were not fine-tuned were classified by {each_of(titles[s.probe] for s in specs)}."
    )
