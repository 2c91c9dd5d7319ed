"""The container that a Slurm job's Python runs in, as the table [slurm.container] of a cluster file names it."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

EXEC = ("apptainer", "singularity")
"""Runtimes whose `exec` starts a command in an image."""
PYXIS = "enroot"
"""The runtime that Slurm itself starts, by flags which the plugin pyxis adds to srun."""
RUNTIMES = (*EXEC, PYXIS)


@dataclass(frozen=True, kw_only=True)
class Container:
    """An image and how it is started; without either, jobs run on the node itself."""

    image: str = ""
    """An image file on a disk that the nodes share, or an address that the runtime understands; empty: no image."""
    runtime: str = "apptainer"
    """One of `RUNTIMES`, or a command line for the node's shell, which starts the command that follows it. `{image}`
    in it is the image."""
    binds: tuple[str, ...] = ()
    """Further folders to be seen inside, as `/path`, `/path:/inside` or `/path:/inside:ro`. The cluster file's own
    paths are. A command line names all of them itself."""
    options: tuple[str, ...] = ()
    """Further arguments of the runtime."""

    def __post_init__(self) -> None:
        if self.runtime in RUNTIMES:
            if not self.image and (self.binds or self.options):
                raise ValueError("slurm.container has no image; name a file or an address")
        else:
            try:
                words = shlex.split(self.runtime)
            except ValueError as error:
                raise ValueError(f"slurm.container.runtime is {self.runtime!r}: {error}") from None
            if not words:
                raise ValueError(f"slurm.container.runtime is empty; give {', '.join(RUNTIMES)} or a command line")
            if self.binds:
                raise ValueError("slurm.container.binds is for the known runtimes; write them into the command line")
            if bool(self.image) != ("{image}" in self.runtime):
                raise ValueError("slurm.container: give an image where the command line holds {image}, and only there")
        for bind in self.binds:
            if not bind.startswith("/") or "," in bind:
                raise ValueError(
                    f"slurm.container.binds holds {bind!r}; write /path, /path:/inside or /path:/inside:ro"
                )

    @property
    def used(self) -> bool:
        """Whether jobs run in a container."""
        return bool(self.image) or self.runtime not in RUNTIMES

    @property
    def file(self) -> Path | None:
        """The image as a file of a shared disk; None if it is an address or there is none."""
        address = "://" in self.image or (self.runtime == PYXIS and not self.image.startswith("/"))
        return None if address or not self.image else Path(self.image)
