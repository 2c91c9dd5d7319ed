"""Which runs travel together, and what an order's folder remembers."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import tiny

from pipeline.jobs import submissions
from pipeline.jobs.plan import Item
from pipeline.jobs.slurm import reconcile, scheduler
from pipeline.runs.folder import Run
from pipeline.runs.spec import run_id


class shards:
    name, fingerprint = "tiny", "0" * 16


def items(folder: Path, seeds=(77, 78, 79)) -> list[Item]:
    """For each seed a pretraining run, its fine-tunes of both arms at two label fractions, and supervised ones."""
    out = []

    def add(spec, parent=None):
        run = Run(folder / run_id(spec))
        out.append(Item(run, spec, "missing", parent.run.id if parent else None))
        return out[-1]

    for seed in seeds:
        parent = add(tiny.make_pretrain(shards, seed=seed))
        for arm in (0, 1):
            for fraction in (0.5, 1.0):
                add(tiny.make_finetune(shards, parent.spec, arm=arm, seed=seed, label_fraction=fraction), parent)
                add(tiny.make_finetune(shards, None, arm=arm, seed=seed, label_fraction=fraction))
    return out


def test_a_pretraining_run_travels_alone_and_a_recipes_seeds_and_fractions_together(tmp_path):
    found = submissions.bundles(items(tmp_path))
    assert [len(bundle.items) for bundle in found if not bundle.fan_out] == [1, 1, 1]
    fan_outs = [bundle for bundle in found if bundle.fan_out]
    assert [len(bundle.items) for bundle in fan_outs] == [6, 6, 6, 6]
    assert {bundle.name() for bundle in fan_outs} == {
        f"tiny.{method}.{arm}.s77-79" for method in ("cass", "supervised") for arm in ("cnn", "transformer")
    }


def test_fan_outs_wait_for_the_runs_they_need_that_are_not_done_and_no_others(tmp_path):
    wanted = items(tmp_path)
    done, *others = [item for item in wanted if item.parent is None and "supervised" not in item.run.id]
    waits_for = {item.run.id for item in others}
    bundles = submissions.bundles(item for item in wanted if item is not done)
    found = {
        draft.name: draft
        for draft in submissions.drafts("mine", bundles, waits_for=waits_for, limit=1001, parallelism=8)
    }
    assert list(found) == [
        "mine.tiny.cass.s78-79",
        "mine.tiny.cass.finetune.s77-79",
        "mine.tiny.supervised.finetune.s77-79",
    ]
    assert found["mine.tiny.cass.finetune.s77-79"].parents == waits_for
    assert not found["mine.tiny.supervised.finetune.s77-79"].parents


def test_long_arrays_are_cut_and_share_their_parallelism(tmp_path):
    bundles = submissions.bundles(items(tmp_path, seeds=range(10)))
    pretraining = [bundle for bundle in bundles if not bundle.fan_out]
    found = submissions.drafts("mine", pretraining, waits_for=set(), limit=4, parallelism=6)
    assert [len(draft.bundles) for draft in found] == [4, 4, 2]
    assert [draft.parallelism for draft in found] == [2, 2, 2]
    assert [draft.name for draft in found] == [f"mine.tiny.cass.s{seeds}" for seeds in ("0-3", "4-7", "8-9")]


def test_an_order_is_read_back_and_knows_its_jobs_and_what_a_fan_out_skipped(tmp_path):
    bundles = [bundle for bundle in submissions.bundles(items(tmp_path)) if bundle.fan_out][:2]
    draft = submissions.Draft("mine", bundles, frozenset(), 2)
    order = submissions.publish(tmp_path, draft, tmp_path / ".code" / "abc")
    assert submissions.read_orders(tmp_path) == [order] and order.code == "abc"
    assert order.job == {} and list(order.tasks()) == []
    order.note_job("17", released=False)
    assert order.job == {"id": "17", "released": False}
    assert list(order.tasks()) == [("17_0", order.parts[0]), ("17_1", order.parts[1])]
    one = dataclasses.replace(order, parts=order.parts[:1])
    assert list(one.tasks()) == [("17", order.parts[0])]

    folder = order.task_folder(1)
    assert [path.name for path in submissions.runs_of(folder)] == list(order.parts[1])
    first, *others = order.parts[1]
    submissions.note_skipped(folder, {first: "failed"})
    assert [carries for _, carries in order.tasks()] == [order.parts[0], tuple(others)]
    submissions.note_skipped(folder, {})
    assert [carries for _, carries in order.tasks()] == list(order.parts)


def published(folder: Path, seed: int) -> submissions.Order:
    """An order of one pretraining run."""
    (bundle,) = [found for found in submissions.bundles(items(folder, [seed])) if not found.fan_out]
    (draft,) = submissions.drafts("grid", [bundle], waits_for=set(), limit=10, parallelism=1)
    return submissions.publish(folder, draft, folder / "code")


def test_a_cluster_that_gives_ids_again_confuses_no_order_with_another(tmp_path):
    """Slurm's ids begin anew with its state; the token in a job's comment tells whose it is."""
    old, new = published(tmp_path, 77), published(tmp_path, 78)
    for order in (old, new):
        order.note_job("7", released=True)
    live = scheduler.Job("7", "RUNNING", "None", new.token, "gpu1")
    assert reconcile.carried(tmp_path, [live]) == {new.parts[0][0]: live}


def test_what_a_person_cancelled_is_known_by_its_order(tmp_path):
    order = published(tmp_path, 77)
    assert submissions.cancelled(tmp_path) == set()
    (order.folder / "cancelled").touch()
    assert submissions.cancelled(tmp_path) == set(order.parts[0])
