"""The table of `python -m pipeline.bench rehearsal`."""

from __future__ import annotations

import json

from pipeline.benchmarks.gpu import rehearsed
from pipeline.study import paper


def test_the_rehearsal_of_a_gpu_prints_its_table(tmp_path, monkeypatch, capsys):
    cases = rehearsed.cases()
    assert len({case.words for case in cases}) == len(cases) == 111 + 8  # steps, and CUDA graphs
    assert set(rehearsed.some_cases()) < set(cases)
    monkeypatch.setattr(rehearsed, "some_cases", lambda: [rehearsed.Case("finetune", paper.RESNET18, "float16")])
    rehearsed.run_rehearsal(tmp_path, quick=True)
    written = json.loads((tmp_path / "rehearsal.json").read_text())
    (row,) = written["rows"]
    found = dict(zip(written["header"], row, strict=True))
    assert (found["program"], found["backbone"], found["waits"]) == ("finetune", "ResNet-18", "1")
    launches = [int(found[name]) for name in rehearsed.PARTS]
    assert int(found["launches"]) == sum(launches) and min(launches[:3]) > 0
    printed = capsys.readouterr().out
    assert rehearsed.text([row]) in printed and "1 step in" in printed

    monkeypatch.setattr(rehearsed, "rehearse_step", None)  # a second call takes the row
    rehearsed.run_rehearsal(tmp_path, quick=True)
    assert capsys.readouterr().out == printed
    of = {name: written[name] for name in ("bench", "code", "libraries", "rehearsal")}
    assert rehearsed.earlier(tmp_path / "rehearsal.json", {**of, "code": "other"}) == {}
