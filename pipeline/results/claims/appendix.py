"""Verdicts on what the paper says outside its abstract: no collapse, and what its ablations show."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pipeline.jobs.plan import Plan
from pipeline.results.claims.comparisons import STEADY, Judged, Pair, above_zero, all_below_zero, below_zero, within
from pipeline.results.claims.setting import lacking, parent_collapsed
from pipeline.results.claims.verdict import FAILS, HOLDS, OPEN, Verdict, points, untested
from pipeline.results.collect import Cell, printed_results
from pipeline.results.texts import METRIC_TITLES
from pipeline.runs.methods import method_info
from pipeline.runs.spec import PretrainSpec, method_of
from pipeline.study import paper

Spot = tuple[str, str, str]
"""Experiment, row as the paper prints it, and column of a cell, on any dataset."""
ABOVE, BELOW, EACH_BELOW, STEADILY = "above", "below", "each below", "within 0.01"


@dataclass(frozen=True)
class Claim:
    """A comparison that the paper draws a conclusion from."""

    text: str
    source: str
    direction: str
    """Where ours minus theirs should be: `ABOVE` or `BELOW` zero on average, `EACH_BELOW`, or `STEADILY` near it."""
    compared: Mapping[str, Sequence[tuple[Spot, Spot]]]
    """By what is compared: ours and theirs."""


def _vit(experiment: str, network: str) -> Spot:
    supervised = experiment.endswith("_supervised")
    return (experiment, network, "score") if supervised else (experiment, f"ResNet-50 | {network}", "Transformer")


def _changed(experiment: str, row: str, standard: str, column: str) -> tuple[Spot, Spot]:
    return (experiment, row, column), (experiment, standard, column)


ADDED = {
    "solarisation": "CASS + Solarize",
    "blur": "CASS + Gaussian blur",
    "both": "CASS + Gaussian blur + Solarize",
}
STANDARD = "ResNet-50 | ViT B/16"
CLAIMS = (
    Claim(
        "ViT L/16 scores below ViT B/16 with CASS",
        "B.5.1 and C.3.2, Tables 11 and 18",
        BELOW,
        {"": [(_vit("transformer", "ViT L/16"), _vit("transformer", "ViT B/16"))]},
    ),
    Claim(
        "ViT L/16 scores below ViT B/16 in supervised training",
        "B.5.1, Table 12",
        BELOW,
        {"": [(_vit("transformer_supervised", "ViT L/16"), _vit("transformer_supervised", "ViT B/16"))]},
    ),
    Claim(
        "Transformers gain over supervised training, 4.7% on average",
        "B.5.1, Tables 11 and 12",
        ABOVE,
        {"": [(_vit("transformer", n), _vit("transformer_supervised", n)) for n in ("ViT B/16", "ViT L/16")]},
    ),
    Claim(
        "CNNs gain over supervised training, 3% on average",
        "B.5.2, Tables 13 and 14",
        ABOVE,
        {
            "": [
                (("cnn", f"{n} | ViT B/16", "CNN"), ("cnn_supervised", n, "score"))
                for n in ("ResNet-18", "ResNet-50", "ResNet-200")
            ]
        },
    ),
    Claim(
        "The Transformer drops by almost 6% where SGD trains the CNN",
        "B.4, Table 10",
        BELOW,
        {"": [_changed("cnn_optimizer", "SGD", "Adam", "Transformer")]},
    ),
    Claim(
        "The CNN does not change where SGD trains it",
        "B.4, Table 10",
        STEADILY,
        {"": [_changed("cnn_optimizer", "SGD", "Adam", "CNN")]},
    ),
    Claim(
        "The CNN stays within a percent with blur and solarisation",
        "B.3, Table 9",
        STEADILY,
        {name: [_changed("augmentation", row, "CASS only", "CNN")] for name, row in ADDED.items()},
    ),
    Claim(
        "The Transformer drops with blur and solarisation",
        "B.3, Table 9",
        EACH_BELOW,
        {name: [_changed("augmentation", row, "CASS only", "Transformer")] for name, row in ADDED.items()},
    ),
    Claim(
        "Random start weights are as good as ImageNet's",
        "C.4, Table 21",
        STEADILY,
        {arm: [_changed("initialisation", "Random", "Imagenet", arm)] for arm in ("CNN", "Transformer")},
    ),
    Claim(
        "Neither of two CNNs reaches ResNet-50 next to a Transformer",
        "C.3.3, Table 19",
        EACH_BELOW,
        {
            network: [(("two_cnns", "ResNet-50 | DenseNet-161", column), ("two_cnns", STANDARD, "ResNet-50 arm"))]
            for network, column in (("ResNet-50", "ResNet-50 arm"), ("DenseNet-161", "arm 2"))
        },
    ),
    Claim(
        "ViT B/16 gains around 1.3% next to a Transformer instead of a CNN",
        "C.3.4, Table 20",
        ABOVE,
        {"": [_changed("two_transformers", "Swin B/4-12 | ViT B/16", STANDARD, "ViT-B/16 arm")]},
    ),
)


def verdicts(plan: Plan, cells: Sequence[Cell]) -> Iterator[Verdict]:
    yield _collapse(plan, cells)
    for claim in CLAIMS:
        yield _verdict(plan, cells, claim)


def _verdict(plan: Plan, cells: Sequence[Cell], claim: Claim) -> Verdict:
    found = {(cell.experiment, cell.key, cell.column, cell.dataset): cell for cell in cells}
    datasets = dict.fromkeys(cell.dataset for cell in cells)
    named: dict[str, list[Pair]] = {}
    for name, spots in claim.compared.items():
        each = [(found.get((*ours, d)), found.get((*theirs, d))) for ours, theirs in spots for d in datasets]
        named[name] = [(ours, theirs) for ours, theirs in each if ours and theirs]
    printed, of_paper = _printed(claim)
    if not all(named.values()):
        return untested(claim.text, claim.source, printed)
    merged = [pair for pairs in named.values() for pair in pairs]
    judged: Judged = {
        ABOVE: lambda: above_zero(merged),
        BELOW: lambda: below_zero(merged),
        EACH_BELOW: lambda: all_below_zero(named),
        STEADILY: lambda: within(named, STEADY),
    }[claim.direction]()
    members = [cell for pair in merged for cell in pair]
    return Verdict(claim.text, claim.source, printed, *judged, lacking(plan, members, of_paper))


def _printed(claim: Claim) -> tuple[str, list[str]]:
    """The differences that the paper's tables give, as text, and on which datasets."""
    values = {key: score.value for key, score in printed_results().items()}
    texts, of_paper = [], []
    for name, spots in claim.compared.items():
        by_dataset: dict[str, list[float]] = {}
        for ours, theirs in spots:
            for dataset in paper.DATASETS:
                a, b = ((experiment, dataset, row, column) for experiment, row, column in (ours, theirs))
                if a in values and b in values:
                    by_dataset.setdefault(dataset, []).append(values[a] - values[b])
        of_paper += [dataset for dataset in by_dataset if dataset not in of_paper]
        given = ", ".join(f"{points(statistics.fmean(found))} ({dataset})" for dataset, found in by_dataset.items())
        texts.append(f"{name}: {given}" if name else given)
    return "; ".join(texts), of_paper


# --- Collapse --------------------------------------------------------------------------------------------------------


def _collapse(plan: Plan, cells: Sequence[Cell]) -> Verdict:
    """From the collapse monitor. The paper has none: it infers from its scores that no run collapsed."""
    claim, source = "CASS does not collapse", "Section 2; B and C"
    printed = "no case; read from its scores, not measured"
    planned = [p for p in plan.runs.values() if isinstance(p.spec, PretrainSpec) and method_of(p.spec) == "cass"]
    if not planned:
        return untested(claim, source, printed)
    members = [cell for cell in cells if cell.method == "cass"]
    done = [p for p in planned if p.state == "done"]
    count = sum(bool(p.run.result().collapsed) for p in done)
    if not done:
        return Verdict(claim, source, printed, "no pretraining run with CASS is done yet", OPEN)
    ours = f"{count} of {len(done)} pretraining runs collapsed, by the spread and rank of their logits"
    ours += _scores_of_collapsed(plan, cells)
    nothing = ("no fine-tune starts from these runs",)
    missing = lacking(plan, members, paper.DATASETS, collapse=False) if members else nothing
    return Verdict(claim, source, printed, ours, FAILS if count else HOLDS, "", missing)


def _scores_of_collapsed(plan: Plan, cells: Sequence[Cell]) -> str:
    """How collapsed arms fine-tuned, next to supervised training of the same networks with the same labels."""
    of = {(c.experiment, c.dataset, c.backbone, c.column): c for c in cells if c.method == "supervised"}
    ours, theirs, metrics = [], [], set()
    for cell in cells:
        rival = of.get((cell.experiment, cell.dataset, cell.backbone, cell.column))
        if cell.method != "cass" or rival is None:
            continue
        scores, others = cell.scores(cell.metric), rival.scores(rival.metric)
        for seed in scores.keys() & others.keys():
            if parent_collapsed(plan, cell, seed):
                ours.append(scores[seed])
                theirs.append(others[seed])
                metrics.add(METRIC_TITLES[cell.metric])
    if not ours:
        return "; good scores would be no evidence against collapse"
    return (
        f"; collapsed arms fine-tune to {statistics.fmean(ours):.4f} ({', '.join(sorted(metrics))}, {len(ours)} runs), "
        f"{method_info('supervised').title.lower()} ones to {statistics.fmean(theirs):.4f}: "
        "good scores are no evidence against collapse"
    )
