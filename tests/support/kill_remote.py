"""Kill a run that reads its shards by byte range from a slow server, and compare it with one on local shards.

The server answers after 20 ms, and scratch has room for a tenth of the stored images, so nothing is kept there.

python tests/support/kill_remote.py --kills 10 --epochs 8
"""

from __future__ import annotations

import argparse
import dataclasses
import random
import sys
import tempfile
import time
import unittest.mock
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kill
import tiny
from web_server import serving

from pipeline.data.shards import remote
from pipeline.jobs import execute
from pipeline.learn.samples import Samples
from pipeline.runs import cluster
from pipeline.runs.cluster import Cluster

DELAY = 0.02


def far_site(folder: Path, address: str, stored: int) -> Cluster:
    paths = {name: str(folder / name) for name in ("runs", "scratch", "weights")}
    flags = {"scratch_in_ram": True, "device": "cpu", "probes": False, "checkpoint_minutes": 0.0, "keep_state": True}
    site = cluster.from_json({**paths, "shards": address, **flags})
    site = dataclasses.replace(site, scratch_gb=stored / 10 / 1e9)
    remote.copy_small_files(site.shards_from, Path(site.shards))
    return site


def wait_share(work: Callable[[], int]) -> float:
    """The share of a run's time, in this process, in which its steps wait for images."""
    waited, real = 0.0, Samples.take

    def timed(self: Samples, *positions: Any, **more: Any) -> Any:
        nonlocal waited
        begin = time.monotonic()
        try:
            return real(self, *positions, **more)
        finally:
            waited += time.monotonic() - begin

    with unittest.mock.patch.object(Samples, "take", timed):
        begin = time.monotonic()
        assert work() == 0
        return waited / (time.monotonic() - begin)


def main(folder: Path, kills: int, epochs: int, seed: int) -> list[str]:
    """What differs between the run that was killed and the one on local shards."""
    shards = tiny.make_shards(folder / "local")
    near = tiny.make_cluster(folder / "near", shards=str(shards.folder.parent), probes=False, keep_state=True)
    spec = tiny.make_pretrain(shards, epochs=epochs)
    with serving(shards.folder.parent) as server:
        server.delay = DELAY
        stored = sum(shards.rows["size"])
        calm = kill.undisturbed(tiny.announce(spec, near))
        rough = tiny.announce(spec, far_site(folder / "far", f"{server.address}/{shards.folder.name}", stored))
        kill.disturbed(rough, kills, 0.6 * calm.result().seconds, random.Random(seed))
        found = kill.differences(rough, calm)
        asked = sum(path.endswith(".tar") for _, path in server.asked)
        print(f"killed {kills} times, {'; '.join(found) or 'the same bits as on local shards'}; {asked} requests")
        again = tiny.announce(spec, far_site(folder / "once", f"{server.address}/{shards.folder.name}", stored))
        share = wait_share(lambda: execute.execute_run(again))
        print(f"waited for images {share:.1%} of the time of an undisturbed run")
        found += [line for line in kill.differences(again, calm)]
        kept = [path for path in (folder / "far" / "scratch").rglob("*") if path.is_file()]
    return found + [f"{path.name} is on scratch" for path in kept if path.suffix in (".images", ".pixels")]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    sys.exit(bool(main(Path(tempfile.mkdtemp()), args.kills, args.epochs, args.seed)))
