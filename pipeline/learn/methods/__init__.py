"""The self-supervised methods, one plugin each: a module with OPTIONS, build(spec, arms) and outputs(spec)."""

from pipeline.core.plugins import Plugins

METHODS = Plugins(__name__)
