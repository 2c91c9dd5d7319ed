"""Which runs share a job, and which jobs form an array."""

from __future__ import annotations

from planned import planned_runs

from pipeline.jobs.arrays import job_arrays, jobs_of


def test_a_pretraining_run_is_a_job_and_so_are_a_recipes_seeds_and_fractions(tmp_path):
    found = jobs_of(planned_runs(tmp_path))
    assert [len(job.runs) for job in found if not job.fan_out] == [1, 1, 1]
    fan_outs = [job for job in found if job.fan_out]
    assert [len(job.runs) for job in fan_outs] == [6, 6, 6, 6]
    assert {job.name() for job in fan_outs} == {
        f"tiny.{method}.{arm}.s77-79" for method in ("cass", "supervised") for arm in ("cnn", "transformer")
    }


def test_fan_outs_wait_for_the_runs_that_they_need_and_that_are_not_done_and_no_others(tmp_path):
    wanted = planned_runs(tmp_path)
    done, *others = [planned for planned in wanted if planned.parent is None and "supervised" not in planned.run.id]
    waits_for = {planned.run.id for planned in others}
    jobs = jobs_of(planned for planned in wanted if planned is not done)
    found = {array.name: array for array in job_arrays("mine", jobs, waits_for=waits_for, limit=1001, parallelism=8)}
    assert list(found) == [
        "mine.tiny.cass.s78-79",
        "mine.tiny.cass.finetune.s77-79",
        "mine.tiny.supervised.finetune.s77-79",
    ]
    assert found["mine.tiny.cass.finetune.s77-79"].parents == waits_for
    assert not found["mine.tiny.supervised.finetune.s77-79"].parents


def test_long_arrays_are_cut_and_share_their_parallelism(tmp_path):
    jobs = jobs_of(planned_runs(tmp_path, seeds=range(10)))
    pretraining = [job for job in jobs if not job.fan_out]
    found = job_arrays("mine", pretraining, waits_for=set(), limit=4, parallelism=6)
    assert [len(array.jobs) for array in found] == [4, 4, 2]
    assert [array.parallelism for array in found] == [2, 2, 2]
    assert [array.name for array in found] == [f"mine.tiny.cass.s{seeds}" for seeds in ("0-3", "4-7", "8-9")]
