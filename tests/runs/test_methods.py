"""What is known of each method without importing torch."""

from __future__ import annotations

import dataclasses

from pipeline.runs.methods import CONTROLS, METHOD_INFO, method_info
from pipeline.runs.spec import REVISIONS


def test_the_revisions_are_those_that_ids_were_given_with() -> None:
    """A revision is raised on purpose only, when the numbers of its part change."""
    methods = {"cass": 1, "cass_vc": 1, "cass_shuffled": 1, "bn_only": 1, "dino": 1, "dino_fb": 1}
    assert REVISIONS == {**methods, "augment": 2, "focal": 1, "average": 1}


def test_each_method_has_the_facts_that_estimates_milestones_and_tables_use() -> None:
    facts = {name: dataclasses.astuple(info) for name, info in METHOD_INFO.items()}
    assert set(CONTROLS) < set(METHOD_INFO)
    assert facts == {
        "cass": ("CASS", 1, False, False, 1.0),
        "cass_vc": ("CASS + variance–covariance", 1, False, False, 1.0),
        "cass_shuffled": ("CASS, shuffled", 1, False, False, 1.0),
        "bn_only": ("Batch norm only", 1, False, False, 1 / 3),
        "dino": ("DINO", 1, True, True, 8 / 3),
        "dino_fb": ("DINO (authors' recipe)", 1, True, True, None),
    }


def test_supervised_has_a_title_and_an_unknown_method_has_its_name_and_the_defaults() -> None:
    assert method_info("supervised").title == "Supervised"
    mine = method_info("mine")
    assert (mine.title, mine.epochs_enter_steps, mine.has_teacher, mine.flops) == ("mine", True, False, 1.0)
