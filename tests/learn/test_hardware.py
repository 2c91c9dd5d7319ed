"""Which precision a GPU gets."""

import pytest

from pipeline.learn import hardware
from pipeline.runs.cluster import Cluster


@pytest.mark.parametrize(
    ("capability", "precision"),
    [((9, 0), "bfloat16"), ((8, 0), "bfloat16"), ((7, 5), "float16"), ((7, 0), "float16"), ((6, 1), "float32")],
)
def test_auto_precision_is_what_the_card_computes_natively(capability, precision):
    assert hardware.best_precision(capability) == precision


def test_a_named_precision_wins_over_the_clusters_and_the_clusters_over_auto():
    site = Cluster(device="cpu", precision="bfloat16")
    assert hardware.choose(site, "auto").precision == "bfloat16"
    assert hardware.choose(site, "float32").precision == "float32"
    assert hardware.choose(Cluster(device="cpu"), "auto").precision == "float32"


def test_threads_come_from_the_cluster_file_never_from_the_machine():
    assert hardware.choose(Cluster(device="cpu"), "auto").threads == 1
    assert hardware.choose(Cluster(device="cpu", threads=3), "auto").threads == 3


def test_a_card_older_than_what_torch_is_built_for_is_answered():
    built = ["sm_75", "sm_80", "sm_120", "compute_120"]
    hardware.check_built_for((7, 5), built)
    hardware.check_built_for((9, 0), built)
    hardware.check_built_for((7, 0), [])
    with pytest.raises(ValueError, match="this GPU is sm_70, torch .* is built for sm_75 and newer"):
        hardware.check_built_for((7, 0), built)
