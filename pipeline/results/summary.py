"""The front of a report: its title, what was asked, what was found and the limits of both, as sentences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from pipeline.core.console import counted, duration
from pipeline.jobs.plan import Plan
from pipeline.results import texts, times
from pipeline.results.collect import Cell
from pipeline.results.datasets import DataSection
from pipeline.results.differences import Comparison
from pipeline.results.ensembles import Ensemble
from pipeline.results.scores import best, largest, main_cells, title_of
from pipeline.results.statistics import MIN_SEEDS
from pipeline.results.training_text import each_of
from pipeline.runs.methods import method_info
from pipeline.runs.spec import PretrainSpec, Spec, method_of

WIDE_GAP = 0.05  # ASSUMED: a validation score so far above the test score is worth a sentence of its own
IN_A_SENTENCE = {"supervised": "supervised training", "frozen": "frozen features"}
TITLES = {"paper": "CASS: the whole paper", "main": "CASS: the main experiment"}

LIMITS = (
    "For research. This is no medical device, no regulator has examined it. Base no diagnosis or treatment on it.",
    "Scores are those of one split of each dataset. Another camera, scanner, clinic or population changes them, and "
    "nothing here measures that unless there is a table on other data.",
    "Validation images chose when training stopped, and the best setting: their scores flatter.",
    "Scores of a network are no probabilities; calibrated ones are, on average, on images like the validation images.",
)
MISSING = (
    "where and when the images were made, with which devices, and who was eligible",
    "who labelled them, by which reference standard, and how well observers agreed",
    "age, sex and other facts of the patients, and scores by subgroup",
    "the approval of an ethics committee, consent, funding and conflicts of interest",
)
"""What reporting guidelines ask for and no file of a run says."""


@dataclass(frozen=True)
class Summary:
    """The front of a report."""

    title: str
    subtitle: str
    facts: Sequence[tuple[str, str]]
    """Names and values in short."""
    asked: Sequence[str]
    found: Sequence[str]
    limits: Sequence[str]


def summary(
    plan: Plan,
    cells: Sequence[Cell],
    data: Sequence[DataSection],
    compared: Sequence[Comparison],
) -> Summary:
    """cells: of trained and of combined networks."""
    titles = [info.title for info in plan.datasets]
    named = dict.fromkeys(method_of(spec) for spec in _specs(plan))
    methods = [IN_A_SENTENCE.get(name) or method_info(name).title for name in named]
    return Summary(
        title=TITLES.get(plan.grid) or (f"{each_of(methods)} on {each_of(titles)}" if methods else plan.grid),
        subtitle=f"run {plan.grid}" if plan.grid in plan.runs else f"grid {plan.grid}, preset {plan.preset.name}",
        facts=_facts(plan, data),
        asked=_asked(plan, cells, data, methods),
        found=[
            *_gaps(cells),
            *_frozen(cells),
            *_differences(compared),
            *_leaks(data),
            *_collapsed(plan),
        ],
        limits=_limits(plan, cells),
    )


def _specs(plan: Plan) -> list[Spec]:
    return [*(entry.spec for entry in plan.entries)] or [*plan.pretrains]


def _facts(plan: Plan, data: Sequence[DataSection]) -> list[tuple[str, str]]:
    done = {planned.run.id: planned.run.result() for planned in plan.in_state("done")}
    seconds = times.compute_seconds(plan, done.values())
    images = {
        f"{section.title}: {' / '.join(section.counts)}": " / ".join(
            f"{part.images:,}" for part in section.counts.values()
        )
        for section in data
        if section.counts
    }
    codes = sorted({code for result in done.values() for code in result.codes or [result.code]})
    return [
        *images.items(),
        ("seeds", str(len({spec.seed for spec in plan.wanted}))),
        ("runs done", f"{len(done)} of {len(plan.runs)}"),
        ("compute time", duration(seconds)),
        *([("code", codes[0] if len(codes) == 1 else f"{len(codes)} versions")] if codes else []),
    ]


def _asked(plan: Plan, cells: Sequence[Cell], data: Sequence[DataSection], methods: Sequence[str]) -> list[str]:
    sizes = each_of(f"{size} × {size}" for size in sorted({spec.image_size for spec in plan.wanted}))
    seeds = counted(len({spec.seed for spec in plan.wanted}), "seed")
    if not cells:
        return [f"What {each_of(methods)} makes of images of {sizes} pixels without labels, with {seeds}."]
    networks = each_of(texts.network_title(cell) for cell in cells if " + " not in cell.arm)
    fractions = each_of(f"{100 * each:g} %" for each in sorted({cell.label_fraction for cell in cells}))
    verb = "How good are" if len(methods) > 1 else "How good is"
    out = [
        f"{verb} {each_of(methods)} with {networks} and {fractions} of the labels, on images of {sizes} pixels, with "
        f"{seeds}?"
    ]
    metrics, split = texts.metrics_of(cells), {each.title: each.lines[0] for each in data if each.counts}
    known = {name: [f"the metric is {metrics[name]}", *([split[name]] if name in split else [])] for name in metrics}
    return [*out, *(f"{name}: {'; '.join(said)}." for name, said in known.items())]


def _gaps(cells: Sequence[Cell]) -> list[str]:
    """How far validation is above test, over the settings of each dataset at the largest label fraction."""
    out = []
    members = [cell for cell in largest(main_cells(cells)) if cell.val_scores and cell.values(cell.metric)]
    for dataset in dict.fromkeys(cell.dataset for cell in members):
        gaps = []
        for cell in (cell for cell in members if cell.dataset == dataset):
            test = cell.scores(cell.metric)
            seeds = cell.val_scores.keys() & test.keys()
            gaps += [fmean(cell.val_scores[seed] - test[seed] for seed in seeds)] if seeds else []
        if gaps:
            text = f"{dataset}: validation minus test is {texts.signed(fmean(gaps), '.4f')}"
            if len(gaps) > 1:
                low, high = (texts.signed(end, ".4f") for end in (min(gaps), max(gaps)))
                text += f" on average over {counted(len(gaps), 'setting')} ({low} to {high})"
            wide = "; so wide a gap may mean that validation images are not like test images, or that they share "
            out.append(f"{text}{wide}something with training images." if fmean(gaps) > WIDE_GAP else f"{text}.")
    return out


def _frozen(cells: Sequence[Cell]) -> list[str]:
    """Where frozen features, which nothing trained, score as high as the best setting; validation chooses both."""
    out = []
    probes = [c for c in largest(main_cells(cells)) if not isinstance(c, Ensemble) and c.spec.probe and c.val_scores]
    for trained in (each.cell for each in best(cells)):
        members = [cell for cell in probes if cell.dataset == trained.dataset and cell.values(cell.metric)]
        if not members or not trained.values(trained.metric):
            continue
        frozen = max(members, key=lambda cell: fmean(cell.val_scores.values()))
        theirs, ours = (fmean(cell.values(cell.metric)) for cell in (frozen, trained))
        if theirs >= ours:
            out.append(
                f"{trained.dataset}: frozen features are as good as training, or better. {title_of(frozen)} has "
                f"{theirs:.4f} on test; the best trained setting, {title_of(trained)}, has {ours:.4f} (validation "
                "chose both)."
            )
    return out


def _differences(compared: Sequence[Comparison]) -> list[str]:
    decided = [each for each in compared if each.difference and each.difference.range]
    if not decided:
        return [f"No comparison of techniques has {MIN_SEEDS} finished seeds yet."] if compared else []
    found = [each for each in decided if each.found]
    head = (
        f"Of {counted(len(decided), 'comparison')} of techniques, {len(found)} found a difference (both 95 % intervals "
    )
    head += "off zero, before Holm's correction)"
    said = []
    for name, dataset in dict.fromkeys((each.name, each.cell.dataset) for each in found):
        members = [each for each in decided if (each.name, each.cell.dataset) == (name, dataset)]
        means = [each.difference.mean for each in members if each.difference and each.found]
        up = sum(mean > 0 for mean in means)
        sides = [f"{up} above zero"] * bool(up) + [f"{len(means) - up} below"] * (up < len(means))
        ends = " to ".join(dict.fromkeys(texts.signed(end, ".4f") for end in (min(means), max(means))))
        said.append(f"{name} on {dataset}: {' and '.join(sides)} of {len(members)} ({ends}).")
    return [f"{head}.", *said]


def _leaks(data: Sequence[DataSection]) -> list[str]:
    return [f"{section.title}: {'; '.join(section.leaks)}." for section in data if section.counts]


def _collapsed(plan: Plan) -> list[str]:
    """How many runs of each method had which arm collapse."""
    found: dict[tuple[str, str, str], list[bool]] = {}
    for planned in plan.in_state("done"):
        if isinstance(planned.spec, PretrainSpec):
            for arm in planned.spec.arms:
                key = method_info(method_of(planned.spec)).title, arm.name, plan.title_of(planned.spec.dataset)
                found.setdefault(key, []).append(arm.name in planned.run.result().collapsed)
    said = [
        f"{title} ({arm}) on {name} in {sum(runs)} of {len(runs)}"
        for (title, arm, name), runs in found.items()
        if any(runs)
    ]
    head = "Collapsed in pretraining (nearly the same output for every image)"
    return [f"{head}: {', '.join(said)}."] if said else []


def _limits(plan: Plan, cells: Sequence[Cell]) -> list[str]:
    out = list(LIMITS)
    seeds = len({spec.seed for spec in plan.wanted})
    if cells and seeds < MIN_SEEDS:
        out.append(
            f"With {counted(seeds, 'seed')} no difference between techniques can be tested: that needs {MIN_SEEDS}."
        )
    if waiting := [title_of(cell) for cell in cells if cell.status != "complete"]:
        out.append(f"{counted(len(waiting), 'cell is', 'cells are')} not complete yet.")
    out += [f"{info.title}: {gap}." for info in plan.datasets for gap in info.gaps]
    out += [f"{note}." for note in filter(None, [texts.stand_in_note(plan)])]
    return [*out, f"Not in any file of a run, for the author to add: {'; '.join(MISSING)}."]
