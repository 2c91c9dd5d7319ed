"""The grids that are not simply one experiment of the paper, one plugin each."""

from pipeline.core.plugins import Plugins

GRIDS = Plugins(__name__)
