"""What is said of one claim: the paper's words and numbers, ours, and whether it holds."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.results import texts

HOLDS, FAILS = "holds", "does not hold"
OPEN, UNTESTED = "not enough evidence", "not tested"
NO_RUN = "this grid has no run for this claim"


@dataclass(frozen=True)
class Verdict:
    """A claim, where the paper makes it, what it prints for it, what our runs give, and whether it holds."""

    claim: str
    source: str
    """The paper's section or tables."""
    printed: str
    ours: str
    outcome: str
    """`HOLDS`, `FAILS`, `OPEN` or `UNTESTED`."""
    why: str = ""
    """Why the evidence is not enough, or what follows."""
    lacking: tuple[str, ...] = ()
    """What the grid lacks of the setting in which the paper claims it; a verdict is then one on this grid."""

    @property
    def verdict(self) -> str:
        """`holds`, or `on this grid only: holds; not the paper's setting: images of 64 pixels, not 384`."""
        text = self.outcome + (f" ({self.why})" if self.why else "")
        if self.outcome in (HOLDS, FAILS) and self.lacking:
            text = f"on this grid only: {text}; not the paper's setting: {'; '.join(self.lacking)}"
        return text

    @property
    def kind(self) -> str:
        """`holds`, `fails`, `open` or `untested`; `grid` for what holds or fails on this grid only."""
        if self.outcome in (HOLDS, FAILS) and self.lacking:
            return "grid"
        return {HOLDS: "holds", FAILS: "fails", UNTESTED: "untested"}.get(self.outcome, "open")


def untested(claim: str, source: str, printed: str) -> Verdict:
    """The verdict on a claim for whose comparison the grid has no run."""
    return Verdict(claim, source, printed, NO_RUN, UNTESTED)


def points(difference: float) -> str:
    """A difference of scores in percent: `+3.8%`."""
    return texts.signed(difference, ".1%")
