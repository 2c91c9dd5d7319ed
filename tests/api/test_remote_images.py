"""Shards behind an address from Python: the pairs of local ones, in forked and in other worker processes too."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny
import torch
from torch.utils.data import DataLoader
from web_server import serving

from pipeline import api
from pipeline.data.shards.index import Shards


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Shards:
    return tiny.make_shards(tmp_path_factory.mktemp("local"))


@pytest.fixture
def site(local: Shards, tmp_path: Path) -> Iterator[str]:
    """A cluster file whose shards are behind an address."""
    with serving(local.folder.parent) as server:
        address = f"{server.address}/{local.folder.name}"
        (tmp_path / "far.toml").write_text(
            f'executor = "local"\nshards = "{address}"\nruns = "{tmp_path / "runs"}"\ndevice = "cpu"\n'
        )
        yield str(tmp_path / "far.toml")


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # that is what is tested
def test_pairs_are_those_of_local_shards_in_worker_processes_too(local: Shards, site: str) -> None:
    found, wanted = api.torch_dataset("tiny", cluster=site), api.torch_dataset(local.folder)
    pairs = [wanted[i] for i in range(8)]
    assert found.keys == wanted.keys  # type: ignore[attr-defined]
    for image, target in (found[0], pickle.loads(pickle.dumps(found))[0]):  # the threads of this process have begun
        assert torch.equal(image, pairs[0][0]) and target == pairs[0][1]
    some = torch.utils.data.Subset(found, range(8))
    (batch,) = DataLoader(some, batch_size=8, num_workers=1, multiprocessing_context="fork", timeout=60)
    assert torch.equal(batch[0], torch.stack([image for image, _ in pairs]))
    assert batch[1].tolist() == [target for _, target in pairs]


def test_a_webdataset_of_an_address_says_what_to_do(local: Shards, site: str) -> None:
    pytest.importorskip("webdataset")
    with pytest.raises(ValueError, match="the tars of tiny are at http://.*; use torch_dataset, or copy the whole"):
        api.web_dataset("tiny", cluster=site)
