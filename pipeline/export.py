"""Export a finished run's network in the form that timm loads.

The folder also holds a model card.

python -m pipeline.export RUN --out DIR                RUN: a run's id, a part of one, or its folder
python -m pipeline.export RUN --out DIR --arm cnn      an arm of a pretraining run, without its head
python -m pipeline.export RUN --out DIR --onnx
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline.cli import flags
from pipeline.core.console import run_command


def parser() -> argparse.ArgumentParser:
    out = flags.described("export", __doc__)
    add = out.add_argument
    add("run", metavar="RUN", help="a finished run: its id, any part of it that names one run, or its folder's path")
    flags.add_network_flags(out, metavar="DIR", writes="the folder to make")
    add("--onnx", action="store_true", help="add model.onnx, checked against torch (extra: onnx)")
    return out


def main() -> int:
    args = flags.given(parser())
    from pipeline.data.shards.remote import copy_small_files
    from pipeline.models.info import ModelInfo
    from pipeline.runs.cluster import load_cluster
    from pipeline.runs.folder import find_run

    site = load_cluster(args.cluster)
    copy_small_files(site.shards_from, Path(site.shards))
    shards = Path(site.shards)
    run = find_run(Path(site.runs), args.run)
    info = ModelInfo.of_run(run, args.arm)

    from pipeline.models import export, onnx

    if args.onnx:
        onnx.check_installed()
    out = Path(args.out).absolute()
    if not export.exists(out, info):
        difference = export.write(run, info, out, with_onnx=args.onnx, shards=shards)
        print(f"{run.id}: {info.backbone}, {', '.join(info.classes) or 'features'}")
    elif args.onnx and not (out / onnx.FILE).exists():
        difference = export.add_onnx(run, info, out, shards=shards)
    else:
        print(f"{out} is this export already; nothing to do")
        return 0
    if difference is not None:
        print(f"{onnx.FILE}: largest difference from torch {difference:.1e}")
    print(f'load it with timm.create_model("local-dir:{out}", pretrained=True)')
    return 0


if __name__ == "__main__":
    run_command(main)
