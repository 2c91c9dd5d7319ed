"""A methods section, written from the specs of a grid's runs, its shards and what its finished runs say.

It says what was done; why, where images come from and who labelled them only the author knows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.core.console import counted, duration
from pipeline.jobs.plan import Plan
from pipeline.results import texts, times, training_text
from pipeline.results.bootstrap import RESAMPLES
from pipeline.results.collect import Cell
from pipeline.results.datasets import DataSection
from pipeline.results.ensembles import BOTH
from pipeline.results.statistics import MIN_SEEDS
from pipeline.results.training_text import each_of, sentence
from pipeline.runs.result import Result
from pipeline.runs.spec import FinetuneSpec, PretrainSpec, Spec


@dataclass(frozen=True)
class Paragraph:
    """A paragraph under its heading."""

    heading: str
    text: str


def paragraphs(plan: Plan, data: Sequence[DataSection], cells: Sequence[Cell], *, compared: bool) -> list[Paragraph]:
    """The section. cells: of trained and of combined networks. compared: whether techniques are compared."""
    specs = [planned.spec for planned in plan.runs.values()]
    tuned = [spec for spec in specs if isinstance(spec, FinetuneSpec) and not spec.probe]
    frozen = [spec for spec in specs if isinstance(spec, FinetuneSpec) and spec.probe]
    pretrained = [spec for spec in specs if isinstance(spec, PretrainSpec)]
    results = [planned.run.result() for planned in plan.in_state("done")]
    made = {
        "Data": _data(data, specs),
        "Labels": _labels([*tuned, *frozen]),
        "Augmentation": training_text.augmentation([*pretrained, *tuned]),
        "Pretraining": training_text.pretraining(pretrained),
        "Fine-tuning": training_text.finetuning(tuned),
        "Frozen features": training_text.frozen(frozen),
        "Scores": _scores(cells),
        "Statistics": _statistics(plan, compared) if cells else "",
        "Software and hardware": _software(plan, results),
    }
    return [Paragraph(heading, text) for heading, text in made.items() if text]


# --- Data ------------------------------------------------------------------------------------------------------------


def _data(data: Sequence[DataSection], specs: Sequence[Spec]) -> str:
    out = []
    for section in data:
        if section.counts:
            parts = [f"{each.images:,} {part}" for part, each in section.counts.items()]
            names = next(iter(section.counts.values())).classes
            labelled = sum(each.labelled for each in section.counts.values())
            text = f"{section.title} has {each_of(parts)} images, {labelled:,} of them with labels, of "
            out.append(f"{text}{counted(len(names), 'class', 'classes')} ({', '.join(names)}).")
            out += [sentence(line) for line in section.lines]
        else:
            out.append(f"{section.title}: {section.lines[0]}.")
    sizes = each_of(f"{size} × {size}" for size in sorted({spec.image_size for spec in specs}))
    out.append(
        f"Images were decoded to upright 8-bit RGB, resized to {sizes} pixels (bilinear with antialiasing; the aspect "
        "ratio was not kept) and stored without metadata. No value was imputed: an image that could not be used was "
        "left out."
    )
    return " ".join(out)


def _labels(specs: Sequence[FinetuneSpec]) -> str:
    if not specs:
        return ""
    fractions = sorted({spec.label_fraction for spec in specs})
    out = [f"Training used {each_of(f'{100 * each:g} %' for each in fractions)} of the labelled training images"]
    if fractions[0] < 1:
        out[0] += ", drawn by each run's seed, stratified by class and nested (a smaller part is in the larger one)"
    limited = [spec for spec in specs if spec.val_fraction < 1]
    if limited:
        out.append("Early stopping saw the same part of the validation labels")
    elif fractions[0] < 1:
        out.append("Early stopping saw all validation labels at every fraction")
    return " ".join(f"{each}." for each in out)


# --- Scores ----------------------------------------------------------------------------------------------------------


def _scores(cells: Sequence[Cell]) -> str:
    if not cells:
        return ""
    of = [f"{metric} on {dataset}" for dataset, metric in texts.metrics_of(cells).items()]
    out = [
        f"The metric of the tables is {each_of(of)}, on test images, which took no part in training or in any choice. "
        "AUROC is the mean over classes, each against the rest. The best setting is the one with the highest mean "
        "validation score at the largest label fraction."
    ]
    if any(" + " in cell.arm for cell in cells):
        out.append(f"{BOTH} is the mean of both networks' scores of the same seed.")
    return " ".join(out)


def _statistics(plan: Plan, compared: bool) -> str:
    seeds = sorted({spec.seed for spec in plan.wanted})
    out = [
        f"Every setting was to be run with {counted(len(seeds), 'seed')} ({', '.join(map(str, seeds))}), which draw "
        "start weights, the order of images, augmentation and the labels; all share one split. Values are means "
        f"± sample standard deviations over seeds. 95 % intervals of scores are percentiles over {RESAMPLES:,} "
        "resamples of the test images (of patients or lesions where they are known)."
    ]
    if compared:
        out.append(
            "Differences between techniques are taken seed by seed. They have two 95 % intervals, Student's t over "
            "seeds and a bootstrap of seeds and test images together, and are called found where both are off zero; p "
            f"values are the larger of both tests' with Holm's correction over them, for {MIN_SEEDS} seeds or more."
        )
    return " ".join(out)


def _software(plan: Plan, results: Sequence[Result]) -> str:
    if not results:
        return ""
    devices = each_of(f"{result.device} in {result.precision}" for result in results)
    versions = {name: sorted({r.versions[name] for r in results if name in r.versions}) for name in _names(results)}
    said = ", ".join(f"{name} {' and '.join(found)}" for name, found in versions.items())
    code = each_of(sorted({code for result in results for code in result.codes or [result.code]}))
    return (
        f"CASS-Pipeline, code {code}; {said or 'versions not known'}. {counted(len(results), 'run')} on {devices}, "
        f"{duration(times.compute_seconds(plan, results))} of training together."
    )


def _names(results: Sequence[Result]) -> list[str]:
    return list(dict.fromkeys(name for result in results for name in result.versions))
