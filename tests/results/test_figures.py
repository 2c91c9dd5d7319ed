"""Figures: they show what the runs hold, images only when asked for, and have the same bytes every time."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
from pathlib import Path

import finished
import numpy as np
import pytest
import tiny
import torch
from sklearn.metrics import confusion_matrix, f1_score

from pipeline import figures
from pipeline.core import files
from pipeline.data.datasets import DATASETS
from pipeline.data.layouts import UserDataset
from pipeline.data.shards.read import read_pixels
from pipeline.jobs.plan import Plan, PlannedRun, make_plan
from pipeline.learn import backbones
from pipeline.learn.augment import normalise, unit
from pipeline.results import collect
from pipeline.results.figures import attention, confusion, curves, features, labels, publish, samples, series, style
from pipeline.runs.cluster import load_cluster
from pipeline.runs.folder import Run
from pipeline.runs.identity import run_id
from pipeline.runs.predictions import read_predictions
from pipeline.runs.spec import DatasetRef, method_of
from pipeline.study import paper
from pipeline.study.experiments import plain_entries
from pipeline.study.grid import load_grid
from pipeline.study.setting import DatasetInfo

IMAGED = {"samples", "attention", "first-layer", "features"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with shards and a grid whose runs are all finished."""
    out = tmp_path_factory.mktemp("figures")
    finished.make_grid(out, tiny.make_shards(out))
    return out


@pytest.fixture(scope="module")
def plan(folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return make_plan("mine.py", load_cluster("here.toml"))


@pytest.fixture(scope="module")
def drawn(folder):
    """The list that the command makes of all of them."""
    assert command(folder, "--with-images") == 0
    return files.read_json(folder / "reports" / "mine" / "figures" / "figures.json")


def command(folder: Path, *arguments: str) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["figures", "--grid", "mine.py", "--cluster", "here.toml", *arguments])
        return figures.main()


def draw(planned, name: str) -> publish.DrawnFigure:
    with style.in_style():
        return next(figure for figure in planned if figure.name == name).draw()


def arrays(drawing: publish.DrawnFigure) -> list[np.ndarray]:
    return [np.asarray(image.get_array()) for axes in drawing.figure.axes for image in axes.images]


def test_every_figure_is_drawn_and_listed_with_its_caption_runs_and_the_papers_figure(folder, plan, drawn):
    out = folder / "reports" / "mine" / "figures"
    assert [entry["kind"] for entry in drawn["figures"]] == sorted(
        (entry["kind"] for entry in drawn["figures"]), key=list(figures.KINDS).index
    )
    assert {entry["kind"] for entry in drawn["figures"]} == set(figures.KINDS) - {"by-group"}
    assert [(entry["kind"], entry["reason"].split()[-2:]) for entry in drawn["skipped"]] == [
        ("by-group", ["several", "images"])
    ]
    assert {entry["kind"] for entry in drawn["figures"] if entry["pictures"]} == IMAGED
    for entry in drawn["figures"]:
        assert entry["files"] == [f"{entry['name']}.pdf", f"{entry['name']}.png"]
        assert (out / entry["files"][0]).read_bytes().startswith(b"%PDF")
        assert (out / entry["files"][1]).read_bytes().startswith(b"\x89PNG")
        assert entry["caption"].endswith(".") and set(entry["runs"]) <= set(plan.runs)
        assert bool(entry["runs"]) == (entry["kind"] != "samples")
    assert {e["kind"]: e["paper"] for e in drawn["figures"]}["attention"] == "as Figure 2"
    named = {name for entry in drawn["figures"] for name in entry["files"]}
    assert {path.name for path in out.iterdir()} == named | {"figures.json"}


def test_another_process_writes_the_same_bytes_and_needs_no_torch_for_figures_of_numbers(folder, drawn):
    arguments = ["--grid", "mine.py", "--cluster", "here.toml", "--out", "again"]
    arguments += ["--only", "pretraining,finetuning,label-efficiency,confusion,roc-pr,reliability"]
    code = (
        "import atexit, runpy, sys\n"
        "atexit.register(lambda: print('torch:', 'torch' in sys.modules))\n"
        f"sys.argv = ['figures', *{arguments!r}]\n"
        "runpy.run_module('pipeline.figures', run_name='__main__')\n"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": str(Path(finished.__file__).parent)}
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("torch: False")
    same(folder / "again", folder, 10)


def test_maps_have_the_same_bytes_when_drawn_again(folder, drawn):
    assert command(folder, "--only", "attention-mean,features", "--with-images", "--out", "maps") == 0
    same(folder / "maps", folder, 2)


def same(again: Path, folder: Path, count: int) -> None:
    paths = [path for path in again.iterdir() if path.suffix in (".pdf", ".png")]
    assert len(paths) == 2 * count
    for path in paths:
        assert path.read_bytes() == (folder / "reports" / "mine" / "figures" / path.name).read_bytes(), path.name


def test_without_the_flag_no_image_is_drawn_and_earlier_ones_are_removed(folder, drawn, tmp_path, capsys):
    entries = [entry for entry in drawn["figures"] if entry["kind"] in ("samples", "confusion")]
    files.write_json(tmp_path / "figures.json", {**drawn, "figures": entries})
    names = [name for entry in entries for name in entry["files"]]
    for name in names:
        (tmp_path / name).write_bytes(b"old")
    assert command(folder, "--only", "samples,first-layer", "--out", str(tmp_path)) == 0
    printed = capsys.readouterr().out
    assert "skipped  samples-tiny: it shows single images; give --with-images" in printed
    assert "0 figures drawn, 2 skipped" in printed
    left = files.read_json(tmp_path / "figures.json")
    assert {entry["kind"] for entry in left["figures"]} == {"confusion"}
    assert {entry["kind"] for entry in left["skipped"]} == {"samples", "first-layer", "by-group"}
    assert {path.name for path in tmp_path.iterdir()} == {n for n in names if "confusion" in n} | {"figures.json"}


def test_where_nothing_is_done_everything_is_skipped_with_a_reason(folder, tmp_path, capsys):
    (tmp_path / "mine.py").write_text((folder / "mine.py").read_text())
    (tmp_path / "here.toml").write_text((folder / "here.toml").read_text())
    assert command(tmp_path, "--out", "out") == 0
    printed = capsys.readouterr().out
    assert "0 figures drawn, 17 skipped, 0 failed" in printed
    assert "no fine-tune is done" in printed and "no pretraining run is done" in printed
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["figures.json"]


def test_an_unknown_kind_is_an_error_that_names_the_known_ones(folder):
    with pytest.raises(ValueError, match="'atention'; known: samples, pretraining"):
        command(folder, "--only", "samples,atention")


def test_broken_shards_fail_their_figures_alone(folder, plan, tmp_path, capsys):
    shards = samples.shards_for(plan, plan.wanted[0].dataset, 32)
    shutil.copytree(shards.folder, tmp_path / "shards" / shards.folder.name)
    for tar in tmp_path.glob("shards/*/test-*.tar"):
        tar.write_bytes(bytes(tar.stat().st_size))
    shutil.copytree(folder / "runs", tmp_path / "runs")
    (tmp_path / "mine.py").write_text((folder / "mine.py").read_text())
    (tmp_path / "here.toml").write_text('executor = "local"\n')
    assert command(tmp_path, "--only", "samples,confusion", "--with-images") == 1
    printed = capsys.readouterr().out
    assert "FAILED   samples-tiny" in printed and "are not those that were written" in printed
    assert "2 figures drawn, 0 skipped, 1 failed" in printed


def test_a_missing_method_is_left_out_and_the_rest_is_drawn(plan):
    runs = {
        name: dataclasses.replace(planned, state="missing" if "-dino-" in name else planned.state)
        for name, planned in plan.runs.items()
    }
    some = dataclasses.replace(plan, runs=runs)
    drawing = draw(attention.attention_mean(some, collect.cells(some), rollout=True), "attention-mean-tiny-test_vit")
    assert [axes.get_title() for axes in drawing.figure.axes[:2]] == ["CASS", "Supervised"]
    assert "attention rollout" in drawing.caption
    assert {plan.runs[identity].spec.seed for identity in drawing.runs} == {77}


# --- Attention and features ------------------------------------------------------------------------------------------


def rebuilt(planned: PlannedRun, shards) -> torch.nn.Module:
    spec = series.finetune_spec(planned)
    model = backbones.build(spec.backbone, outputs=len(shards.classes), image_size=32, weights="random", folder=Path())
    model.load_state_dict(backbones.load_arm(planned.run["weights"], "model"))
    return model.eval()


def shards_and_run(plan, drawing: publish.DrawnFigure, method: str):
    planned = next(plan.runs[name] for name in drawing.runs if f"-{method}-" in name)
    return samples.shards_for(plan, planned.spec.dataset, 32), planned


def test_the_mean_attention_is_that_of_the_drawn_images_by_timms_own_softmax(plan):
    drawing = draw(attention.attention_mean(plan, collect.cells(plan), rollout=False), "attention-mean-tiny-test_vit")
    shards, planned = shards_and_run(plan, drawing, "cass")
    rows = samples.labelled_test(shards)  # fewer than 30: all of them
    assert f"averaged over {len(rows)} test images" in drawing.caption
    model = rebuilt(planned, shards)
    seen: list[torch.Tensor] = []
    model.blocks[-1].attn.fused_attn = False
    model.blocks[-1].attn.attn_drop.register_forward_hook(lambda module, inputs, output: seen.append(output))
    with torch.no_grad():
        model(normalise(unit(torch.from_numpy(read_pixels(shards, rows))), planned.spec.augment))
    by_timm = seen[0][:, :, 0, 1:].mean(dim=(0, 1)).reshape(2, 2) * 4
    assert [axes.get_title() for axes in drawing.figure.axes[:3]] == ["CASS", "Supervised", "DINO"]
    np.testing.assert_allclose(arrays(drawing)[0], by_timm.numpy(), rtol=1e-4)
    each = seen[0][:, :, 0, 1:].mean(dim=1).double()  # [images, patches]
    shares = each / each.sum(dim=1, keepdim=True)
    entropy = -(shares * shares.log()).sum(dim=1) / np.log(4)
    np.testing.assert_allclose(drawing.measured["cass"]["entropy"], entropy.numpy(), rtol=1e-4)
    assert {len(values["centre"]) for values in drawing.measured.values()} == {len(rows)}


def test_even_attention_is_spread_and_a_quarter_of_it_is_in_the_centre():
    even, corner, middle = np.ones((6, 6)), np.zeros((6, 6)), np.zeros((6, 6))
    corner[0, 0] = middle[2:4, 2:4] = 1.0
    maps = np.stack([even, corner, middle])
    np.testing.assert_allclose(attention.spread_of(maps), [1, 0, np.log(4) / np.log(36)], atol=1e-12)
    np.testing.assert_allclose(attention.centre_of(maps), [0.25, 0, 1])


def test_the_first_layers_maps_are_the_first_convolutions_output(plan):
    drawing = draw(features.first_layer(plan, collect.cells(plan)), "first-layer-tiny-test_resnet")
    shards, planned = shards_and_run(plan, drawing, "cass")
    pixels = read_pixels(shards, [samples.one_image(shards)])
    with torch.no_grad():
        model = rebuilt(planned, shards)
        out = model.conv1[0](normalise(unit(torch.from_numpy(pixels)), planned.spec.augment))[0].numpy()
    shown = arrays(drawing)
    assert (shown[0] == pixels[0]).all()
    np.testing.assert_allclose(shown[1], out.mean(axis=0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(shown[4], out[2], rtol=1e-4, atol=1e-6)


def test_a_backbone_without_class_attention_is_skipped_with_its_reason(folder, plan):
    spec = next(spec for spec in plan.wanted if spec.pretrain is None and spec.arm == "transformer")
    other = dataclasses.replace(spec, backbone="test_resnet.r160_in1k", label_fraction=1.0)
    shards = samples.shards_for(plan, spec.dataset, 32)
    site = tiny.make_cluster(folder, shards=str(shards.folder.parent))
    one = dataclasses.replace(plan, entries=plain_entries([other]))
    one.runs = {run_id(other): PlannedRun(finished.finish(other, site, shards), other, "done", None)}
    with pytest.raises(publish.NothingToDraw, match="has no class-attention map"):
        draw(attention.attention_mean(one, collect.cells(one), rollout=False), "attention-mean-tiny-test_resnet")


# --- Which images --------------------------------------------------------------------------------------------------


def test_images_are_drawn_in_proportion_with_every_class_and_always_the_same():
    labels = [("a",)] * 60 + [("b",)] * 30 + [("c",)] * 9 + [("d",)] + [None] * 5
    chosen = samples.proportional(labels, "abcd", 10)
    count = {name: sum(labels[i] == (name,) for i in chosen) for name in "abcd"}
    assert count == {"a": 6, "b": 2, "c": 1, "d": 1} or count == {"a": 5, "b": 3, "c": 1, "d": 1}
    assert chosen == sorted(set(chosen)) == samples.proportional(labels, "abcd", 10)
    assert samples.proportional(labels, "abcd", 50) == sorted(set(samples.proportional(labels, "abcd", 50)))
    assert [sum(labels[i] == (n,) for i in samples.proportional(labels, "abcd", 50)) for n in "abc"] == [30, 15, 4]
    assert samples.proportional(labels, "abcd", 200) == list(range(100))
    assert len(samples.proportional(labels, "abcd", 2)) == 2


def test_an_image_of_several_classes_counts_for_its_rarest():
    labels = [("a", "b")] * 2 + [("a",)] * 8 + [()] * 2
    chosen = [labels[i] for i in samples.proportional(labels, "ab", 6)]
    assert (chosen.count(("a", "b")), chosen.count(("a",)), chosen.count(())) == (1, 4, 1)


# --- Scores ----------------------------------------------------------------------------------------------------------


def test_a_confusion_matrix_is_scikit_learns_normalised_by_row(plan):
    drawing = draw(confusion.confusion(plan, collect.cells(plan)), "confusion-tiny-test_vit")
    runs = [plan.runs[name].run for name in drawing.runs if "-supervised-" in name]
    assert len(runs) == 2
    total = 0
    for run in runs:
        found = read_predictions(run["predictions"])
        assert found.classes == ("cross", "disc")
        total = total + confusion_matrix(found.targets.argmax(axis=1), found.scores.argmax(axis=1))
    np.testing.assert_allclose(arrays(drawing)[1], total / total.sum(axis=1, keepdims=True))
    texts = {text.get_text() for text in drawing.figure.axes[1].texts}
    assert {f"{count:,}" for count in total.flatten() if count} <= texts


@pytest.mark.parametrize(("number", "named"), [(4, [2, 3]), (5, [2, 3, 4])])
def test_classes_are_named_below_the_lowest_matrix_of_each_column(plan, number, named):
    group = next(iter(series.groups(collect.cells(plan))))
    shown = series.at_largest_fraction(plan, group)
    figure, _ = confusion._matrices((2 * list(shown))[:number])
    panels = [axes for axes in figure.axes if axes.get_visible() and axes.images]
    below = [any(label.get_visible() for label in axes.get_xticklabels()) for axes in panels]
    assert [place for place, is_named in enumerate(below) if is_named] == named
    assert [place for place, axes in enumerate(panels) if axes.get_xlabel()] == named


def test_a_single_epoch_is_in_the_middle_and_no_marker_is_cut():
    figure = style.new_figure(4, 2)
    several = figure.subplots(1, 2, sharey="row")
    for axes, value in zip(several, (0.2, 0.3), strict=True):
        axes.plot([1], [value], "o")
        style.whole_epochs(axes)
        style.from_zero(*several)
        assert axes.get_xlim() == (0.5, 1.5)
        assert [tick for tick in axes.get_xticks() if 0.5 <= tick <= 1.5] == [1]
    assert several[0].get_ylim() == several[1].get_ylim() == (0, pytest.approx(0.324))


def test_where_an_image_may_have_several_classes_each_class_has_its_f1(tmp_path):
    shards = many_labels(tmp_path)
    plan = make_plan(str(finished.make_grid(tmp_path, shards, methods=("supervised",))), tiny.make_cluster(tmp_path))
    drawing = draw(confusion.confusion(plan, collect.cells(plan)), "confusion-many-test_resnet")
    runs = [plan.runs[name].run for name in drawing.runs if "-test_resnet-" in name]
    found = []
    for run in runs:
        predictions = read_predictions(run["predictions"])
        found.append(f1_score(predictions.targets, predictions.scores > 0.5, average=None, zero_division=0))
    bars = [bar.get_height() for bar in drawing.figure.axes[0].patches[:2]]
    assert len(runs) == 2 and bars == pytest.approx(np.mean(found, axis=0).tolist())


def many_labels(folder: Path):
    """Shards of images with none, one or both of two classes."""
    from PIL import Image

    (folder / "raw").mkdir()
    lines = ["image,left,right"]
    for number in range(80):
        pixels = np.random.default_rng(number).integers(0, 255, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "raw" / f"{number}.png")
        lines.append(f"{number}.png,{number % 2},{number // 2 % 2}")
    (folder / "raw" / "labels.csv").write_text("\n".join(lines))
    return tiny.shard(UserDataset("many", "csv"), folder / "raw", folder / "shards")


def test_label_efficiency_shows_means_deviations_and_the_papers_points(tmp_path):
    plugin = DATASETS.find("isic").DATASET
    info = DatasetInfo(DatasetRef(name="isic", fingerprint="0" * 16), plugin.label_fractions, plugin.metric)
    entries = load_grid("main").entries([info], [77, 78], paper.preset("paper"))
    wanted = [entry.spec for entry in entries]
    main = Plan("main", load_cluster("local"), paper.preset("paper"), [info], entries)
    values = iter((0.5, 0.6))
    for spec in wanted:
        run = Run(tmp_path / run_id(spec))
        main.runs[run.id] = PlannedRun(run, spec, "missing", None)
        if method_of(spec) == "cass" and spec.arm == "transformer" and spec.label_fraction == 1.0:
            run.announce(spec)
            run.finish(finished.result(spec, {"balanced_accuracy": next(values)}))
            main.runs[run.id].state = "done"
    cells = collect.cells(main)
    drawing = draw(labels.label_efficiency(main, cells), "label-efficiency-isic")
    axes = next(axes for axes in drawing.figure.axes if "transformer" in axes.get_title())
    lines = [line for line in axes.get_lines() if line.get_linestyle() != "None"]
    ours = next(line for line in lines if line.get_linestyle() == "-")
    assert ours.get_ydata().tolist() == pytest.approx([0.55])
    assert ours.get_color() == style.METHOD_STYLES["cass"].colour
    dashed = {line.get_color(): line for line in lines if line.get_linestyle() == "--"}
    theirs = dashed[style.METHOD_STYLES["cass"].colour].get_ydata()
    printed = collect.printed_results()
    row = "CASS | ViT B/16"
    assert theirs.tolist() == [printed["main", "isic", row, f].value for f in ("1%", "10%", "100%")]
    assert set(dashed) == {marks.colour for marks in style.METHOD_STYLES.values()}
    assert "Table 6" in drawing.caption and "n = 2" in drawing.caption


# --- Curves ----------------------------------------------------------------------------------------------------------


def test_a_band_is_mean_and_sample_deviation_as_far_as_half_the_seeds_go():
    means, deviations = curves.band([[1.0, 2.0, 3.0, 4.0], [3.0, 4.0], [5.0]])
    assert means.tolist() == [3.0, 3.0]
    assert deviations.tolist() == pytest.approx([2.0, 2**0.5])
    assert curves.band([[1.0, 2.0]])[1].tolist() == [0.0, 0.0]


def test_curves_are_those_of_metrics_jsonl(plan):
    drawing = draw(curves.finetuning(plan, collect.cells(plan)), "finetuning-tiny-test_resnet")
    runs = [plan.runs[name] for name in drawing.runs if "-supervised-" in name]
    rows = [files.read_jsonl(p.run["metrics"]) for p in runs if p.spec.label_fraction == 0.1]
    expected = np.mean([[row["val_loss"] for row in each] for each in rows], axis=0)
    colour = style.METHOD_STYLES["supervised"].colour
    bold = [line for line in drawing.figure.axes[0].get_lines() if line.get_color() == colour][-1]
    assert bold.get_ydata().tolist() == pytest.approx(expected.tolist())
    assert drawing.figure.axes[0].get_title() == "10% labels"


def test_epochs_flagged_as_collapsed_have_a_cross(plan, tmp_path):
    planned = next(p for p in plan.runs.values() if "-cass-s77" in p.run.id)
    rows = files.read_jsonl(planned.run["metrics"])
    rows[2]["cnn_collapsed"] = True
    shutil.copytree(planned.run.folder, tmp_path / planned.run.id)
    changed = dataclasses.replace(planned, run=Run(tmp_path / planned.run.id))
    files.write_jsonl(changed.run["metrics"], rows)
    other = dataclasses.replace(plan, runs={**plan.runs, planned.run.id: changed})
    drawing = draw(curves.pretraining(other, []), "pretraining-tiny")
    crosses = [c.get_offsets().tolist() for c in drawing.figure.axes[1].collections if len(c.get_offsets())]
    assert [[3.0, pytest.approx(rows[2]["cnn_spread"])]] in crosses
    legend = [text.get_text() for text in drawing.figure.legends[0].get_texts()]
    assert legend == ["CASS", "DINO", "cnn", "transformer", "flagged as collapsed"]


def test_techniques_keep_their_styles_and_no_two_have_the_same():
    styles = style.marker_styles(["cass", "cass", "dino", "mine", "supervised"])
    assert len(set(styles)) == 5
    assert (styles[0], styles[2], styles[4]) == tuple(
        style.METHOD_STYLES[name] for name in ("cass", "dino", "supervised")
    )


def test_dollar_signs_in_a_name_are_text_and_no_formula(tmp_path):
    with style.in_style():
        figure = style.new_figure(3, 3)
        figure.subplots().set_xticks(range(2), ["$x^{$", "b $_y_$"])
        assert style.save(figure, tmp_path, "named") == (["named.pdf", "named.png"], "")


def test_a_font_that_matplotlib_cannot_read_is_passed_over(monkeypatch, tmp_path):
    (tmp_path / "odd.ttf").write_bytes(b"no font")

    def addfont(path):
        raise UnicodeDecodeError("utf-16-be", b"x", 0, 1, f"truncated data of {path}")

    monkeypatch.setattr(style.font_manager, "findSystemFonts", lambda: [str(tmp_path / "odd.ttf")])
    monkeypatch.setattr(style.font_manager.fontManager, "addfont", addfont)
    assert style._fonts.__wrapped__()[0] == style.FONT


def test_characters_that_no_font_has_are_told_below_the_figure_and_warn_nobody(tmp_path):
    def planned(name: str) -> publish.PlannedFigure:
        def draw() -> publish.DrawnFigure:
            figure = style.new_figure(3, 3)
            figure.subplots().set_title(name)
            return publish.DrawnFigure(figure, "A caption.", [])

        return publish.PlannedFigure(kind="k", name="n", dataset="d", paper="", draw=draw)

    (tmp_path / "figures").mkdir()
    private = "\ue123\ue124"  # characters for private use: no font for texts has them
    for name, wanted in ((f"{private} ä λ", private), ("ä λ ж", "")):
        (drawn,) = publish.draw_all([planned(name)], tmp_path / "figures", with_images=False).figures
        assert drawn["caption"] == "A caption." + (publish.BOXES.format(wanted) if wanted else "")
