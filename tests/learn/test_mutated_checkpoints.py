"""Damaged checkpoints: the newest that is whole is loaded, or none; never another state, never a traceback."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import mutations
import torch

from pipeline.learn import checkpoint
from pipeline.runs.folder import Run

CPU = torch.device("cpu")


def state_of(step: int) -> dict[str, object]:
    return {"step": step, "weights": torch.arange(50.0) + step, "names": ["a", "b"]}


def damage(path: Path, rng: random.Random) -> None:
    """Change the bytes of a checkpoint or its name, cut it, or leave nothing."""
    data, kind = path.read_bytes(), rng.randrange(6)
    if kind == 0:
        path.unlink()
    elif kind == 1:
        name = mutations.damaged(path.stem.encode(), rng).decode("latin-1").replace("/", "x").replace("\0", "x")
        path.rename(path.with_name(f"checkpoint-{name}.pt"))
    elif kind == 2:
        changed = bytearray(data)
        changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(changed)
    else:
        path.write_bytes(rng.choice([b"", bytes(len(data)), mutations.damaged(data, rng)]))


def test_the_newest_whole_checkpoint_is_loaded_or_none(tmp_path: Path) -> None:
    run = Run(tmp_path / "whole")
    run.folder.mkdir()
    states = {step: state_of(step) for step in (1, 2)}
    written = {step: checkpoint.save(run, state, step) for step, state in states.items()}
    rng, loaded = random.Random(mutations.SEED), []
    for _ in range(mutations.count(300)):
        copied = Run(tmp_path / "copied")
        shutil.copytree(run.folder, copied.folder)
        for path in rng.sample(list(written.values()), rng.choice([1, 1, 2])):
            damage(copied.folder / path.name, rng)
        found = checkpoint.load(copied, CPU)
        step = None if found is None else found["step"]
        loaded.append(step)
        if found is not None:
            assert found.keys() == states[step].keys() and torch.equal(found["weights"], states[step]["weights"])
        if all((copied.folder / path.name).exists() for path in written.values()):
            whole = [s for s, path in written.items() if (copied.folder / path.name).read_bytes() == path.read_bytes()]
            assert step == max(whole, default=None)
        shutil.rmtree(copied.folder)
    assert set(loaded) == {1, 2, None}
