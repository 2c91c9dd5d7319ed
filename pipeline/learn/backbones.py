"""Backbones by timm tag: built for an image size and a number of outputs, with their start weights.

Weights come from files alone (prefetched, or the hub's cache); nothing is downloaded here. Paper E.2.1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from pipeline.core import files
from pipeline.core.seeds import derive
from pipeline.learn.weights import weights_file
from pipeline.runs.cluster import Cluster
from pipeline.runs.folder import Run
from pipeline.runs.identity import run_id
from pipeline.runs.spec import FinetuneSpec, PretrainSpec
from pipeline.runs.start_weights import StartWeights

Arguments = Mapping[str, float | int | str | bool]
"""What timm's function of a network takes in addition."""
Normalisation = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation of the channels."""


def build(
    tag: str, *, outputs: int, image_size: int, weights: str, folder: Path, given: StartWeights | None = None
) -> nn.Module:
    """The timm model `tag` with a head of `outputs` values for images of image_size × image_size.

    With `weights="imagenet"` the pretrained head is kept where `outputs` is its own width (1000), else drawn at random;
    with `"given"` it is always drawn. With `"random"`, `given` only says how the network is built. Raises `ValueError`
    when timm does not know the tag or its weights are not on this machine.
    """
    arguments = given.arguments if given else {}
    if weights == "given":
        file = weights_file(tag, folder, given)
        return with_body(tag, file, outputs=outputs, image_size=image_size, arguments=arguments)
    imagenet = weights_file(tag, folder) if weights == "imagenet" else None
    return from_file(tag, imagenet, outputs=outputs, image_size=image_size, arguments=arguments)


def from_file(
    tag: str, file: Path | None, *, outputs: int, image_size: int, arguments: Arguments = MappingProxyType({})
) -> nn.Module:
    """As `build`, with the weights of a safetensors file (None: random ones), resampled as timm does where a ViT was
    trained at another size."""
    overlay = {} if file is None else {"file": str(file), "custom_load": False}
    return _create(tag, outputs, image_size, arguments, overlay)


def with_body(tag: str, file: Path, *, outputs: int, image_size: int, arguments: Arguments) -> nn.Module:
    """As `from_file`, with a new head; `ValueError` with the entries where the file does not hold all of the rest."""
    from timm.models import load_state_dict

    heads = timm_config(tag).classifier
    heads = tuple(f"{head}." for head in ([heads] if isinstance(heads, str) else heads or ()))
    try:
        state = {name: tensor for name, tensor in load_state_dict(str(file)).items() if not name.startswith(heads)}
        overlay = {"state_dict": state, "custom_load": False, "num_classes": 0}
        model: Any = _create(tag, 0, image_size, arguments, overlay)
    except (RuntimeError, SafetensorError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{file} does not hold the weights of {tag}: {reason[:400]}") from error
    del model.pretrained_cfg["state_dict"]
    if outputs:
        model.reset_classifier(outputs)
    return cast(nn.Module, model)


def _create(tag: str, outputs: int, image_size: int, arguments: Arguments, overlay: dict[str, Any]) -> nn.Module:
    """timm's network; an empty overlay of its configuration means random weights."""
    import timm

    own: dict[str, Any] = {**arguments, "num_classes": outputs}
    if timm_config(tag).fixed_input_size:
        own["img_size"] = image_size
    try:
        return cast(nn.Module, timm.create_model(tag, pretrained=bool(overlay), pretrained_cfg_overlay=overlay, **own))
    except TypeError as error:
        raise ValueError(f"timm does not build {tag} with {dict(arguments)}: {error}") from error


def timm_config(tag: str) -> Any:
    """timm's configuration of a network, or of a network with the weights of a tag; `ValueError` if it knows none."""
    import timm

    try:
        config = timm.get_pretrained_cfg(tag)
    except RuntimeError:  # a network that it knows, without that tag
        config = None
    if config is None:
        raise ValueError(f"timm {timm.__version__} knows no model {tag!r}; see timm.list_models(pretrained=True)")
    return config


def start_of(spec: FinetuneSpec, outputs: int, cluster: Cluster) -> nn.Module:
    """The network that a fine-tuning run starts from, on the CPU: start weights, or an arm of its pretraining run."""
    torch.manual_seed(derive("init", spec.seed))
    weights = "random" if spec.pretrain else spec.weights
    folder = Path(cluster.weights)
    model = build(
        spec.backbone,
        outputs=outputs,
        image_size=spec.image_size,
        weights=weights,
        folder=folder,
        given=spec.given,
    )
    if spec.pretrain is not None:
        parent = Run(Path(cluster.runs) / run_id(spec.pretrain))
        load_body(model, load_arm(parent["weights"], spec.arm))
    return model


def arms_of(spec: PretrainSpec, outputs: int, cluster: Cluster) -> dict[str, nn.Module]:
    """The networks that a pretraining run starts from, on the CPU; all of them take images normalised as `augment`."""
    torch.manual_seed(derive("init", spec.seed))
    out = {}
    for arm in spec.arms:
        model = out[arm.name] = build(
            arm.backbone,
            outputs=outputs,
            image_size=spec.image_size,
            weights=arm.weights,
            folder=Path(cluster.weights),
            given=arm.given,
        )
        if arm.given is not None and arm.given.normalisation != (spec.augment.mean, spec.augment.std):
            renormalise(model, (spec.augment.mean, spec.augment.std), arm.given.normalisation)
    return out


def renormalise(model: nn.Module, images: Normalisation, own: Normalisation) -> None:
    """Make a network that wants its `own` normalisation take images that were normalised in another way.

    Its first convolution converts what it gets, also where the network is copied or only its features are asked for.
    """
    config: Any = model.pretrained_cfg
    first = config["first_conv"]
    if not isinstance(first, str):
        raise ValueError(f"{config['architecture']} has no single first convolution that could convert its images")
    (mean, std), (own_mean, own_std) = (torch.tensor(values).view(2, 3, 1, 1) for values in (images, own))
    scale, shift = std / own_std, (mean - own_mean) / own_std

    def convert(module: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
        nonlocal scale, shift
        images = inputs[0]
        scale, shift = scale.to(images.device), shift.to(images.device)
        out: Tensor = images * scale + shift
        return out

    model.get_submodule(first).register_forward_pre_hook(convert)


def timm_version() -> str:
    import timm

    return str(timm.__version__)


def features(model: nn.Module, images: Tensor) -> Tensor:
    """The input of the head: images [n, 3, h, w] → [n, model.head_hidden_size] (fidelity 3c)."""
    maps = model.forward_features(images)  # type: ignore[operator]
    out: Tensor = model.forward_head(maps, pre_logits=True)  # type: ignore[operator]
    return out


def head_prefix(model: nn.Module) -> str:
    """The prefix of the head's entries in the model's state, as timm names it ("fc.", "head.", …)."""
    config: Any = model.pretrained_cfg
    return f"{config['classifier']}."


def load_body(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load everything but the head; `ValueError` when the entries do not fit the model."""
    head = head_prefix(model)
    body = {name: tensor for name, tensor in state.items() if not name.startswith(head)}
    missing, unexpected = model.load_state_dict(body, strict=False)
    wrong = [name for name in missing if not name.startswith(head)] + list(unexpected)
    if wrong:
        raise ValueError(f"the weights do not fit the backbone: {wrong[0]} and {len(wrong) - 1} more differ")


def save_arms(path: Path, arms: Mapping[str, nn.Module], metadata: dict[str, str]) -> None:
    """Publish the states of named networks in one safetensors file, each entry headed by `<name>/`."""
    tensors = {
        f"{name}/{key}": value.detach().cpu().contiguous()
        for name, arm in arms.items()
        for key, value in arm.state_dict().items()
    }
    with files.publish(path) as file:
        file.write(save(tensors, metadata=metadata))


def load_arm(path: Path, name: str) -> dict[str, Tensor]:
    """The state of one network from such a file, without reading the others."""
    with safe_open(path, framework="pt") as file:
        return {key[len(name) + 1 :]: file.get_tensor(key) for key in file.keys() if key.startswith(f"{name}/")}


def has_batch_norm(model: nn.Module) -> bool:
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())


@torch.no_grad()
def forward_in_batches(
    model: nn.Module, images: Iterable[Tensor], forward: Callable[[Tensor], Tensor] | None = None
) -> Tensor:
    """The model's outputs in evaluation mode for batches of images, on the CPU in float32: [n, outputs].

    `forward` gives others than `model(images)`. Every module has its own mode again afterwards.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    out = torch.cat([(forward or model)(batch).float().cpu() for batch in images])
    for module, training in modes:
        module.training = training
    return out
