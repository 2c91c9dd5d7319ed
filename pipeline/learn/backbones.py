"""Backbones by timm tag: built for an image size and a number of outputs, with their start weights.

Weights come from files alone (prefetched, or the hub's cache); nothing is downloaded here. Paper E.2.1.
`Resized` lets a ViT take images of another size than it was built for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from pipeline.core import files
from pipeline.core.seeds import derive
from pipeline.learn.weights import weights_file
from pipeline.runs.cluster import Cluster
from pipeline.runs.folder import Run
from pipeline.runs.identity import run_id
from pipeline.runs.spec import FinetuneSpec


def build(tag: str, *, outputs: int, image_size: int, weights: str, folder: Path) -> nn.Module:
    """The timm model `tag` with a head of `outputs` values for images of image_size × image_size.

    With `weights="imagenet"` the pretrained head is kept where `outputs` is its own width (1000), else drawn at random.
    Raises `ValueError` when timm does not know the tag or its weights are not on this machine.
    """
    file = weights_file(tag, folder) if weights == "imagenet" else None
    return from_file(tag, file, outputs=outputs, image_size=image_size)


def from_file(tag: str, file: Path | None, *, outputs: int, image_size: int) -> nn.Module:
    """As `build`, with the weights of a safetensors file (None: random ones), resampled as timm does where a ViT was
    trained at another size."""
    import timm

    arguments: dict[str, Any] = {"num_classes": outputs}
    config = timm.get_pretrained_cfg(tag)
    if config is None:
        raise ValueError(f"timm {timm.__version__} knows no model {tag!r}; see timm.list_models(pretrained=True)")
    if config.fixed_input_size:
        arguments["img_size"] = image_size
    if file is not None:
        arguments.update(pretrained=True, pretrained_cfg_overlay={"file": str(file), "custom_load": False})
    model: nn.Module = timm.create_model(tag, **arguments)
    return model


def start_of(spec: FinetuneSpec, outputs: int, cluster: Cluster) -> nn.Module:
    """The network that a fine-tuning run starts from, on the CPU: start weights, or an arm of its pretraining run."""
    torch.manual_seed(derive("init", spec.seed))
    weights = "random" if spec.pretrain else spec.weights
    folder = Path(cluster.weights)
    model = build(spec.backbone, outputs=outputs, image_size=spec.image_size, weights=weights, folder=folder)
    if spec.pretrain is not None:
        parent = Run(Path(cluster.runs) / run_id(spec.pretrain))
        load_body(model, load_arm(parent["weights"], spec.arm))
    return model


def timm_version() -> str:
    import timm

    return str(timm.__version__)


def features(model: nn.Module, images: Tensor) -> Tensor:
    """The input of the head: images [n, 3, h, w] → [n, model.head_hidden_size] (fidelity 3c)."""
    maps = model.forward_features(images)  # type: ignore[operator]
    out: Tensor = model.forward_head(maps, pre_logits=True)  # type: ignore[operator]
    return out


class Resized:
    """Runs a module that holds a backbone as `prefix` on images of `side` pixels instead of its own size.

    Convolutional networks take any size. A ViT's position embedding is multiplied by a fixed matrix instead of being
    resampled in the graph: the backward pass of bicubic resampling is not deterministic on CUDA. Raises `ValueError`
    for other networks.
    """

    def __init__(self, backbone: nn.Module, side: int, prefix: str) -> None:
        from timm.models.vision_transformer import VisionTransformer

        self.name = f"{prefix}.pos_embed"
        self.matrix: Tensor | None = None
        config: Any = backbone.pretrained_cfg
        if not config["fixed_input_size"]:
            return
        tag = f"{config['architecture']}.{config['tag']}"
        if not isinstance(backbone, VisionTransformer) or backbone.pos_embed is None:
            raise ValueError(
                f"{tag} takes images of one size only, so no crops of {side} pixels; use a CNN, a ViT or a method "
                "whose crops have the image's size (dino)"
            )
        embed: Any = backbone.patch_embed
        if side % embed.patch_size[0]:
            raise ValueError(f"crops of {side} pixels do not divide into {tag}'s patches of {embed.patch_size[0]}")
        prefixes = 0 if backbone.no_embed_class else backbone.num_prefix_tokens
        self.matrix = position_matrix(embed.grid_size[0], side // embed.patch_size[0], prefixes)
        # switch off timm's own resampling
        backbone.dynamic_img_size, embed.flatten, embed.strict_img_size = False, True, False

    def __call__(self, module: nn.Module, images: Tensor) -> Tensor:
        """The module's output for images [n, 3, side, side]; gradients reach the position embedding itself."""
        if self.matrix is None:
            return cast(Tensor, module(images))
        own = module.get_parameter(self.name)
        self.matrix = self.matrix.to(own.device)
        with torch.autocast(images.device.type, enabled=False):
            resized = self.matrix @ own
        return cast(Tensor, torch.func.functional_call(module, {self.name: resized}, (images,)))


def position_matrix(old: int, new: int, prefixes: int) -> Tensor:
    """The matrix [prefixes + new², prefixes + old²] that resamples a grid of old × old positions as timm does.

    Bicubic with antialiasing; the first `prefixes` tokens (class, registers) are kept.
    """
    basis = torch.eye(old * old).view(old * old, 1, old, old)
    grid = nn.functional.interpolate(basis, size=(new, new), mode="bicubic", antialias=True)
    matrix = torch.zeros(prefixes + new * new, prefixes + old * old)
    matrix[:prefixes, :prefixes] = torch.eye(prefixes)
    matrix[prefixes:, prefixes:] = grid.view(old * old, new * new).T
    return matrix


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
