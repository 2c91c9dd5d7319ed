"""The specs of the paper's runs (CASS, DINO and fine-tuning), of CASS with a guard and of its controls, at the paper's
size.

Each function gives the standard run as a value. `dataclasses.replace` changes its fields; `with_optim` and
`with_options` change what is inside them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from pipeline.runs.methods import CONTROLS
from pipeline.runs.spec import (
    REVISIONS,
    Arm,
    Augment,
    DatasetRef,
    FinetuneSpec,
    Method,
    Optim,
    PretrainSpec,
)
from pipeline.study import paper
from pipeline.study.paper import Backbone, Options, Preset


def cass(
    dataset: DatasetRef, backbones: Sequence[Backbone] = paper.STANDARD, *, preset: Preset, seed: int
) -> PretrainSpec:
    """CASS as in Appendix E. `arm_names` names the arms."""
    arms = [_arm(name, b, paper.PRETRAIN_OPTIM) for name, b in zip(arm_names(backbones), backbones, strict=True)]
    return PretrainSpec(
        dataset=dataset,
        method=Method(name="cass", revision=REVISIONS["cass"], options={"head_dim": paper.HEAD_DIM}),
        arms=tuple(arms),
        augment=paper.AUGMENT,
        average=preset.average,
        epochs=paper.PRETRAIN_EPOCHS,
        batch_size=paper.PRETRAIN_BATCH,
        image_size=paper.IMAGE_SIZE,
        seed=seed,
        precision="float32" if preset.keep_gradients else "auto",  # a float16 scaler does not work with kept gradients
        keep_gradients=preset.keep_gradients,
    )


GUARD_OPTIONS: Options = {"head_dim": paper.HEAD_DIM, "variance": 2.0, "covariance": 0.04}
"""VICReg's weights, 25 : 25 : 1, over that of the agreement, with the variance's doubled: batches are small."""
GUARD_OPTIM = Optim(name="adam", lr=3e-4, schedule="once", warmup=0.1)
"""docs/decisions/0019. The rate falls to zero, so no weights are averaged."""
GUARD_RATES: Mapping[str, float] = {paper.CNN: GUARD_OPTIM.lr, paper.TRANSFORMER: 3e-5}
"""By role. At the CNN's rate a Transformer's answers lose most of their rank within 50 steps."""


def cass_vc(
    dataset: DatasetRef,
    backbones: Sequence[Backbone] = paper.STANDARD,
    *,
    seed: int,
    rates: Mapping[str, float] = GUARD_RATES,
) -> PretrainSpec:
    """CASS with a guard: the paper's arms, images, epochs and batch; no preset changes it. `rates` are by role."""
    plain = cass(dataset, backbones, preset=paper.preset("paper"), seed=seed)
    method = Method(name="cass_vc", revision=REVISIONS["cass_vc"], options=GUARD_OPTIONS)
    optims = [replace(GUARD_OPTIM, lr=rates[backbone.role]) for backbone in backbones]
    arms = tuple(replace(arm, optim=optim) for arm, optim in zip(plain.arms, optims, strict=True))
    return replace(plain, method=method, arms=arms, average=None)


def controls(plain: PretrainSpec) -> dict[str, PretrainSpec]:
    """The controls of a run of CASS, by method: all as it is, but each image in one arm against another in the other
    (`cass_shuffled`), and one epoch of forward passes without a step (`bn_only`)."""
    shuffled, bn_only = (
        replace(plain, method=replace(plain.method, name=name, revision=REVISIONS[name])) for name in CONTROLS
    )
    return {"cass_shuffled": shuffled, "bn_only": replace(bn_only, epochs=1)}


def _arm(name: str, backbone: Backbone, optim: Optim) -> Arm:
    return Arm(name=name, backbone=backbone.tag, weights=backbone.weights, optim=optim, given=backbone.given)


def arm_names(backbones: Sequence[Backbone]) -> tuple[str, ...]:
    """The role of each backbone; the second of two with one role is `cnn_2` or `transformer_2`."""
    first, *rest = backbones
    return (first.role, *(b.role if b.role != first.role else f"{b.role}_2" for b in rest))


@dataclass(frozen=True)
class Dino:
    """An implementation of DINO: what its runs have and the other's do not."""

    method: str
    augment: Augment
    options: Options
    optim: Optim
    lr_batch: int | None = None
    """The batch size of the learning rate, which grows with the batch; None: it is the same for every batch size."""
    local_side: float | None = None
    """The side of a small crop, as a fraction of the image's, in whole patches of 16; None: the method needs none."""
    follows_preset: bool = False
    """Whether the preset says that augmentation is drawn once for a batch; the notebook knows this one alone."""


VIT_PYTORCH = Dino("dino", paper.DINO_AUGMENT, paper.DINO_OPTIONS, paper.DINO_OPTIM, follows_preset=True)
"""The implementation that E.2.1 names."""
FACEBOOK = Dino(
    "dino_fb",
    paper.DINO_FB_AUGMENT,
    paper.DINO_FB_OPTIONS,
    paper.DINO_FB_OPTIM,
    lr_batch=paper.DINO_FB_LR_BATCH,
    local_side=paper.DINO_FB_LOCAL,
)
"""The authors' recipe for ViTs."""


def dino(
    dataset: DatasetRef,
    backbone: Backbone,
    kind: Dino = VIT_PYTORCH,
    *,
    preset: Preset,
    seed: int,
    batch_size: int = paper.PRETRAIN_BATCH,
    image_size: int = paper.IMAGE_SIZE,
) -> PretrainSpec:
    """DINO with one backbone, which is its own teacher. Epochs, batch and size are CASS's (E.4).

    Give `batch_size` and `image_size` here rather than by `replace`: the learning rate and the crops may depend on
    them. Weights are not averaged: the paper names that for CASS alone, and the teacher is an average already.
    """
    options, optim = dict(kind.options), kind.optim
    if kind.follows_preset:
        options["batch_draws"] = preset.batch_draws
    if kind.local_side is not None:
        options["local_side"] = max(1, round(image_size * kind.local_side / 16)) * 16
    if kind.lr_batch is not None:
        optim = replace(optim, lr=optim.lr * batch_size / kind.lr_batch)
    return PretrainSpec(
        dataset=dataset,
        method=Method(name=kind.method, revision=REVISIONS[kind.method], options=options),
        arms=(_arm(backbone.role, backbone, optim),),
        augment=kind.augment,
        average=None,
        epochs=paper.PRETRAIN_EPOCHS,
        batch_size=batch_size,
        image_size=image_size,
        seed=seed,
        precision="float32" if kind.follows_preset and preset.batch_draws else "auto",  # vit-pytorch's
    )


def finetune(
    dataset: DatasetRef,
    backbone: Backbone,
    pretrain: PretrainSpec | None = None,
    *,
    preset: Preset,
    seed: int,
    label_fraction: float = 1.0,
    arm: str | None = None,
) -> FinetuneSpec:
    """Fine-tuning as in Appendix E.3 and E.5; supervised without a pretraining run.

    `arm` is the pretraining arm to start from; None: the one named by the backbone's role. Images are normalised as the
    backbone's given weights want them, else as the paper does it.
    """
    augment, given = paper.AUGMENT, backbone.given
    if given is not None:
        augment = replace(augment, mean=given.mean, std=given.std)
    return FinetuneSpec(
        dataset=dataset,
        backbone=backbone.tag,
        weights=backbone.weights,
        pretrain=pretrain,
        arm=arm or backbone.role,
        label_fraction=label_fraction,
        augment=augment,
        optim=paper.FINETUNE_OPTIM,
        loss=preset.loss,
        epochs=paper.FINETUNE_EPOCHS,
        patience=paper.FINETUNE_PATIENCE,
        batch_size=paper.FINETUNE_BATCH,
        image_size=paper.IMAGE_SIZE,
        seed=seed,
        stopping=preset.stopping,
        given=given,
        val_fraction=label_fraction if preset.val_as_train else 1.0,
    )


def with_optim(spec: PretrainSpec, optim: Optim) -> PretrainSpec:
    """The run with this optimizer for every arm."""
    return replace(spec, arms=tuple(replace(arm, optim=optim) for arm in spec.arms))


def with_options(spec: PretrainSpec, options: Options) -> PretrainSpec:
    """The run with these options of its method in place of its own; where its own is a float, 2 is 2.0."""
    own = spec.method.options
    like = {name: float(value) if isinstance(own.get(name), float) else value for name, value in options.items()}
    return replace(spec, method=replace(spec.method, options={**own, **like}))
