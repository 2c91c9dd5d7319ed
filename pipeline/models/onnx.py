"""A network as an ONNX graph for batches of any size, checked against torch before it is returned."""

from __future__ import annotations

import importlib.util
import logging
import warnings
from typing import Any

import torch

from pipeline.models.network import Network

FILE = "model.onnx"
NEEDED = ("onnx", "onnxscript", "onnxruntime")
TOLERANCE = 1e-4  # of the largest output; float32 sums in another order differ by less than that


def check_installed() -> None:
    """Raise `ValueError` when a library of the extra `onnx` is not installed."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(
            f"--onnx needs {', '.join(missing)}, of the extra `onnx`: python -m pip install {' '.join(NEEDED)}"
        )


def graph(network: Network) -> tuple[bytes, float]:
    """The ONNX file's bytes, and the largest difference of its outputs from torch's on batches of 1 and 3.

    Input `images` [n, 3, size, size], normalised; output `logits` [n, classes], or `features` of a pretrained arm.
    Raises `ValueError` where a difference exceeds `TOLERANCE` times the largest output.
    """
    check_installed()
    import onnxruntime

    model, info = network.model, network.info
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(3, 3, info.image_size, info.image_size, generator=generator)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns about its own code
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program: Any = torch.onnx.export(
            model,
            (images[:2],),
            input_names=["images"],
            output_names=["features" if info.task == "features" else "logits"],
            dynamic_shapes=({0: torch.export.Dim("n")},),
            dynamo=True,
            verbose=False,
        )
    data: bytes = program.model_proto.SerializeToString()
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    largest, scale = 0.0, 1.0
    with torch.no_grad():
        for batch in (images[:1], images):
            expected = model(batch)
            found = torch.from_numpy(session.run(None, {"images": batch.numpy()})[0])
            largest = max(largest, (found - expected).abs().max().item())
            scale = max(scale, expected.abs().max().item())
    if not largest <= TOLERANCE * scale:
        raise ValueError(
            f"the ONNX graph of {info.backbone} differs from torch by {largest:.1e}, "
            f"more than {TOLERANCE * scale:.1e}, and was not written; export without "
            "--onnx, or with another version of torch or onnxruntime"
        )
    return data, largest
