"""The features that a network gives the images of shards, as Parquet."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.core import files
from pipeline.data.pixel_map import open_pixels
from pipeline.data.shards import arrow
from pipeline.data.shards.index import Shards
from pipeline.learn import backbones, samples
from pipeline.models.network import Network
from pipeline.runs.cluster import Cluster

BATCH = 64
ROW_GROUP = 16 * BATCH  # rows; not more are in memory


def write(
    network: Network, shards: Shards, cluster: Cluster, path: Path, progress: Callable[..., Iterable[Any]]
) -> int:
    """Publish the features of all images, in the order of the index; returns their width.

    Columns: `key`, `split`, `labels` (null where an image has none), `features` (float32, of fixed length). The file's
    metadata `embedding` says what made them. `ValueError` where images have another size than the network takes.
    """
    import pyarrow as pa
    import pyarrow.parquet as parquet

    info = network.info
    if shards.size != info.image_size:
        raise ValueError(f"{shards.folder} has images of {shards.size} pixels; the network takes {info.image_size}")
    width = int(network.model.head_hidden_size)  # type: ignore[arg-type]
    facts = {
        "run": info.run,
        "network": info.network,
        "backbone": info.backbone,
        "weights_sha256": info.weights_sha256,
        "dataset": shards.name,
        "fingerprint": shards.fingerprint,
        "image_size": info.image_size,
        "mean": info.mean,
        "std": info.std,
    }
    text = pa.string()
    schema = pa.schema(
        [("key", text), ("split", text), ("labels", pa.list_(text)), ("features", pa.list_(pa.float32(), width))],
        metadata={"embedding": json.dumps(facts)},
    )
    count = len(shards.rows["key"])
    groups = [np.arange(start, min(start + ROW_GROUP, count)) for start in range(0, count, ROW_GROUP)]
    read = samples.gather(open_pixels(shards, cluster))
    with (
        files.only_writer(path),
        files.publish(path) as file,
        parquet.ParquetWriter(file, schema, compression="zstd") as writer,
    ):
        for rows in progress(groups, total=len(groups), what="features"):
            found = np.concatenate(list(_features(network, read, rows)))
            columns = [
                arrow.strings([shards.rows["key"][row] for row in rows]),
                arrow.strings([shards.rows["split"][row] for row in rows]),
                arrow.lists(shards.labels(rows.tolist())),
                pa.FixedSizeListArray.from_arrays(pa.array(found.ravel()), width),
            ]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))
    return width


@torch.no_grad()
def _features(network: Network, read: Callable[..., object], rows: np.ndarray) -> Iterator[np.ndarray]:
    """Features of rows in batches: float32 [≤ BATCH, width] each."""
    size = network.info.image_size
    for start in range(0, len(rows), BATCH):
        batch = rows[start : start + BATCH]
        pixels = torch.empty((len(batch), size, size, 3), dtype=torch.uint8)
        read(batch, pixels)
        features: np.ndarray = backbones.features(network.model, network.images(pixels.numpy())).float().cpu().numpy()
        yield features
