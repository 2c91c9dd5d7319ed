"""Whether CASS's gain is agreement between its arms, from controls that do all but agree on the same image.

The paper takes it for granted: information passes from one arm to the other (Section 1; C.3.1 and C.3.3). It has no
control.
"""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.jobs.plan import Plan
from pipeline.results.claims.comparisons import Pair, above_zero, described
from pipeline.results.claims.setting import lacking
from pipeline.results.claims.verdict import FAILS, HOLDS, OPEN, Verdict, untested
from pipeline.results.collect import Cell
from pipeline.results.differences import difference
from pipeline.runs.methods import CONTROLS, method_info
from pipeline.study import paper

CLAIM = "CASS's gain comes from its arms' agreement on the same image"
SOURCE = "Sections 1 and C.3.1"
PRINTED = "no control"


def verdict(plan: Plan, cells: Sequence[Cell]) -> Verdict:
    """Holds where CASS beats both controls. Where one beats CASS, or gains over supervised training by itself and
    agreement adds less than CASS gains, the gain is not agreement."""
    main = [cell for cell in cells if cell.experiment == "main"]
    pairs = {name: _pairs(main, "cass", name) for name in CONTROLS}
    pairs = {name: found for name, found in pairs.items() if found}
    if not pairs:
        return untested(CLAIM, SOURCE, PRINTED)
    texts, reasons, outcomes = [], [], []
    gain = difference(_pairs(main, "cass", "supervised"))
    for name, found in pairs.items():
        title = method_info(name).title
        text, outcome, why = above_zero(found)
        texts.append(f"CASS − {title}: {text}")
        agreement = difference(found)
        if outcome != HOLDS and agreement is not None and agreement.range is not None:
            alone, its_outcome, _ = above_zero(_pairs(main, name, "supervised"))
            texts.append(f"{title} − Supervised: {alone}")
            less = gain is not None and agreement.range[1] < gain.mean
            outcome = FAILS if outcome == FAILS or (its_outcome == HOLDS and less) else OPEN
            why = f"CASS does not beat {title}: " + (
                "its gain is not agreement" if outcome == FAILS else "that its gain is agreement is not shown"
            )
        outcomes.append(outcome)
        reasons.append(why)
    if gain is not None:
        texts.append(f"CASS − Supervised: {described(gain)}")
    outcome = next((each for each in (FAILS, OPEN) if each in outcomes), HOLDS)
    why = "; ".join(dict.fromkeys(reason for reason, each in zip(reasons, outcomes, strict=True) if each == outcome))
    if outcome == HOLDS and len(pairs) < len(CONTROLS):
        outcome, why = OPEN, "the other control is not in this grid"
    of_cass = [cell for cell in main if cell.method == "cass"]
    return Verdict(CLAIM, SOURCE, PRINTED, "; ".join(texts), outcome, why, lacking(plan, of_cass, paper.DATASETS))


def _pairs(main: Sequence[Cell], ours: str, theirs: str) -> list[Pair]:
    """The cells of one method, each with that of another on the same dataset, network and labels."""
    found = {(cell.dataset, cell.backbone, cell.column): cell for cell in main if cell.method == theirs}
    each = [(cell, found.get((cell.dataset, cell.backbone, cell.column))) for cell in main if cell.method == ours]
    return [(cell, rival) for cell, rival in each if rival]
