"""Damaged and lying images of every format: none is lost, none is written wrong unnoticed, none takes too much."""

from __future__ import annotations

import mutated


def test_a_few_hundred_mutated_files_are_written_right_or_refused_with_a_reason() -> None:
    count = 400
    counts, most = mutated.run(range(count))
    assert sum(counts.values()) == count
    assert counts["refused"] > count / 3 and counts["written"] > count / 20
    assert most < mutated.BUDGET * 2


def test_a_seed_always_gives_the_same_file_and_seeds_differ() -> None:
    files = {mutated.mutate(seed).data for seed in range(50)}
    assert len(files) > 45
    assert mutated.mutate(3) == mutated.mutate(3)


def test_every_whole_file_is_written() -> None:
    """So that a refusal is about the damage."""
    from pipeline.data import images

    for kind, data in mutated.wholes().items():
        assert images.decode(data).pixels.ndim == 3, kind
