"""Every grid: ids are unique, specs survive JSON, pretraining is shared; main has the paper's counts."""

import pytest

from pipeline import lookup, paper
from pipeline.spec import DatasetRef, from_json, run_id, to_json


def cards(names):
    out = []
    for name in names:
        leaf = lookup.find("datasets", name).DATASET
        ref = DatasetRef(name=name, fingerprint=f"{name:0<16}"[:16])
        out.append(paper.Card(ref, leaf.label_fractions, leaf.metric))
    return out


@pytest.mark.parametrize("preset", paper.PRESETS)
@pytest.mark.parametrize("name", lookup.known("grids"))
def test_a_grids_ids_are_unique_and_its_specs_survive_json(name, preset):
    module = lookup.find("grids", name)
    wanted = module.grid(cards(module.DATASETS), [77, 78], paper.preset(preset))
    ids = [run_id(spec) for spec in wanted]
    assert len(set(ids)) == len(ids) > 0
    assert all(from_json(to_json(spec)) == spec for spec in wanted)
    assert all(run_id(from_json(to_json(spec))) == run_id(spec) for spec in wanted)


def test_main_is_60_pretraining_runs_and_300_fine_tunes():
    module = lookup.find("grids", "main")
    wanted = module.grid(cards(module.DATASETS), list(paper.SEEDS), paper.preset("paper"))
    parents = {run_id(spec.pretrain) for spec in wanted if spec.pretrain}
    assert (len(parents), len(wanted)) == (60, 300)


def test_presets_give_runs_of_their_own():
    module = lookup.find("grids", "small")
    ids = [
        {run_id(spec) for spec in module.grid(cards(["isic"]), [77], paper.preset(preset))} for preset in paper.PRESETS
    ]
    assert ids[0] & ids[1] == ids[0] & ids[2] == ids[1] & ids[2] == set()
