"""The standard runs, and what changes in them with the preset, the batch size and the image size."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipeline.runs.identity import recipe
from pipeline.runs.spec import DatasetRef
from pipeline.study import paper, recipes

REF = DatasetRef(name="none", fingerprint="0" * 16)
PAPER, NOTEBOOK = paper.preset("paper"), paper.preset("notebook")


def test_arms_have_the_weights_of_their_backbones() -> None:
    spec = recipes.cass(REF, (paper.RESNET200, replace(paper.VIT_B16, weights="random")), preset=PAPER, seed=77)
    assert [arm.weights for arm in spec.arms] == ["random", "random"]
    assert [arm.weights for arm in recipes.cass(REF, preset=PAPER, seed=77).arms] == ["imagenet", "imagenet"]
    tuned = recipes.finetune(REF, paper.RESNET200, preset=PAPER, seed=77)
    assert (tuned.weights, tuned.arm, tuned.label_fraction, tuned.pretrain) == ("random", "cnn", 1.0, None)


def test_the_notebook_keeps_gradients_and_averages_nothing_in_float32() -> None:
    spec = recipes.cass(REF, preset=NOTEBOOK, seed=77)
    assert (spec.keep_gradients, spec.average, spec.precision) == (True, None, "float32")
    dino = recipes.dino(REF, paper.VIT_B16, preset=NOTEBOOK, seed=77)
    assert (dino.method.options["batch_draws"], dino.precision) == (True, "float32")


def test_under_sound_early_stopping_sees_as_large_a_part_of_validation_labels_as_training_of_its_own() -> None:
    made = {
        (preset.name, fraction): recipes.finetune(REF, paper.VIT_B16, preset=preset, seed=77, label_fraction=fraction)
        for preset in paper.PRESETS.values()
        for fraction in (0.01, 0.1, 1.0)
    }
    seen = {name: spec.val_fraction for name, spec in made.items() if spec.val_fraction != 1}
    assert seen == {("sound", 0.01): 0.01, ("sound", 0.1): 0.1}
    assert len({recipe(spec) for (name, _), spec in made.items() if name == "sound"}) == 1


def test_no_preset_changes_dino_by_its_authors() -> None:
    made = {
        str(recipes.dino(REF, paper.VIT_B16, recipes.FACEBOOK, preset=preset, seed=77))
        for preset in paper.PRESETS.values()
    }
    assert len(made) == 1 and "batch_draws" not in made.pop()


@pytest.mark.parametrize(("batch", "rate"), [(16, 5e-4 * 16 / 256), (256, 5e-4)])
def test_the_learning_rate_of_dino_by_its_authors_grows_with_the_batch(batch: int, rate: float) -> None:
    spec = recipes.dino(REF, paper.VIT_B16, recipes.FACEBOOK, preset=PAPER, seed=77, batch_size=batch)
    assert (spec.arms[0].optim.lr, spec.batch_size) == (rate, batch)


def test_options_and_optimizers_are_replaced_inside_a_spec() -> None:
    spec = recipes.cass(REF, preset=PAPER, seed=77)
    slow = replace(paper.PRETRAIN_OPTIM, lr=1e-5)
    assert [arm.optim for arm in recipes.with_optim(spec, slow).arms] == [slow, slow]
    small = recipes.with_options(recipes.dino(REF, paper.VIT_B16, preset=PAPER, seed=77), {"out_dim": 64})
    assert small.method.options == {**paper.DINO_OPTIONS, "out_dim": 64}


def test_cass_with_a_guard_differs_from_the_papers_in_method_rate_and_average_alone() -> None:
    plain, guarded = recipes.cass(REF, preset=PAPER, seed=77), recipes.cass_vc(REF, seed=77)
    again = recipes.with_optim(replace(guarded, method=plain.method, average=plain.average), paper.PRETRAIN_OPTIM)
    assert again == plain
    assert [arm.optim for arm in guarded.arms] == [recipes.GUARD_OPTIM, replace(recipes.GUARD_OPTIM, lr=3e-5)]
    assert guarded.method.options == recipes.GUARD_OPTIONS
