"""Write the features of a dataset's images to Parquet.

Nothing is trained: a network that is there already gives each image of some shards its features.

python -m pipeline.embed RUN DATASET --out FILE             RUN: a fine-tuning run, or an export's folder
python -m pipeline.embed RUN DATASET --out FILE --arm cnn   an arm of a pretraining run
python -m pipeline.embed WEIGHTS DATASET --out FILE --backbone resnet50.a1_in1k
                                                            WEIGHTS: a safetensors file, or `imagenet`
python -m pipeline.embed NAME DATASET --out FILE            NAME: start weights that `prefetch` brought
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline.cli import flags
from pipeline.core.console import progress, run_command


def parser() -> argparse.ArgumentParser:
    out = flags.described("embed", __doc__)
    add = out.add_argument
    add("network", metavar="RUN_OR_WEIGHTS", help="a finished run, an export's folder, or weights")
    add("dataset", metavar="DATASET", help="a dataset with shards, by name, or the folder of its shards")
    flags.add_network_flags(out, metavar="FILE", writes="the Parquet file to write")
    add("--backbone", metavar="TAG", help="timm's name of the network that the weights in a file are of")
    return out


def main() -> int:
    args = flags.given(parser())
    from pipeline.data.shards.index import shards_named
    from pipeline.data.shards.remote import copy_small_files
    from pipeline.learn import weights
    from pipeline.models import embed, network
    from pipeline.runs.cluster import load_cluster

    site = load_cluster(args.cluster)
    copy_small_files(site.shards_from, Path(site.shards))
    named = weights.description(args.network, Path(site.weights)).is_file()
    if args.backbone or named:
        shards = shards_named(Path(site.shards), args.dataset, None)
        found = network.open_weights(args.network, args.backbone, shards.size, site)
    else:
        found = network.open_network(args.network, args.arm, site)
        shards = shards_named(Path(site.shards), args.dataset, found.info.image_size)
    width = embed.write(found, shards, site, args.out, progress)
    print(f"written: {args.out}, {len(shards.rows['key'])} images of {shards.name}, {width} features each")
    return 0


if __name__ == "__main__":
    run_command(main)
