"""Checks of single values, whose errors name the value and what it may be."""

from __future__ import annotations


def one_of(what: str, value: str, known: tuple[str, ...]) -> None:
    """`ValueError` with the known values if `value` is none of them."""
    if value not in known:
        raise ValueError(f"{what} is {value!r}; known: {', '.join(known)}")


def positive(**values: float) -> None:
    """`ValueError` for the first value that is not above zero."""
    for what, value in values.items():
        if not value > 0:
            raise ValueError(f"{what} is {value}; it must be above zero")


def fraction(**values: float) -> None:
    """`ValueError` for the first value that is not in (0, 1]."""
    for what, value in values.items():
        if not 0 < value <= 1:
            raise ValueError(f"{what} is {value}; it is a fraction in (0, 1]")
