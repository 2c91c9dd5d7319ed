"""The names of timm's networks are read from its source; they must be those that timm itself lists."""

from __future__ import annotations

import timm

from pipeline.learn.weights import known_networks


def test_the_names_in_the_source_are_those_that_timm_lists() -> None:
    assert known_networks() == set(timm.list_models())
