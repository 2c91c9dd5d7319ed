"""The datasets, one plugin each: a module whose DATASET says what the dataset holds and lists its files."""

from pipeline.core.plugins import Plugins

DATASETS = Plugins(__name__)
