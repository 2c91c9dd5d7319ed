"""The dataset plugins: each module has a DATASET that describes one dataset and lists its files."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pipeline.core.plugins import Plugins

if TYPE_CHECKING:
    from pipeline.data.layouts.options import Options
    from pipeline.data.records import Dataset

DATASETS = Plugins(__name__)


def find_dataset(name: str, layout: str | None, options: Options | None = None) -> Dataset:
    """The plugin called `name`, or with a layout the user's own images under that name, read as `options` say.

    Raises `ValueError` for an unknown name, for a layout with a plugin's name or a name that is no plain word, and for
    options that do not go with the layout.
    """
    from pipeline.data.layouts import UserDataset

    names = DATASETS.names()
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise ValueError(f"the dataset's name is {name!r}; use lower-case letters, digits and _, with a letter first")
    if layout:
        if name in names:
            raise ValueError(f"{name!r} is a known dataset; with --layout give your images another name")
        return UserDataset(name, layout, options)
    if name == "folder":
        raise ValueError("give your images a name of their own: pipeline.shard my_images --layout folder --raw DIR")
    if name not in names:
        raise ValueError(
            f"there is no dataset {name!r}; known: {', '.join(names)}; for your own images add --layout folder, csv or "
            "dicom"
        )
    if options is not None:
        options.check(layout)
    dataset: Dataset = DATASETS.find(name).DATASET
    return dataset
