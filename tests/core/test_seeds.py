"""Named random streams never change and are independent of each other."""

from __future__ import annotations

from pipeline.core.seeds import derive


def test_a_seed_never_changes() -> None:
    # printf 'str:order\x1fint:77\x1fint:3' | sha256sum: its first 16 digits, halved
    assert derive("order", 77, 3) == 0xACC5EC206305C0C8 >> 1


def test_a_number_and_its_digits_are_different_parts() -> None:
    assert derive("order", 77) != derive("order", "77")


def test_parts_are_not_concatenated() -> None:
    assert len({derive("ab", "c"), derive("a", "bc"), derive("abc"), derive("a", "b", "c"), derive("c", "ab")}) == 5


def test_seeds_fit_every_generator_and_do_not_repeat() -> None:
    seeds = {derive("order", seed, epoch) for seed in range(20) for epoch in range(50)}
    assert len(seeds) == 1000
    assert all(0 <= seed < 2**63 for seed in seeds)
