"""Weight averaging: the mean by hand, and a batch-norm update that touches nothing live."""

import copy

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, update_bn

from pipeline.learn.average import Averages, refresh_batch_norm, update
from pipeline.runs.spec import Average


def test_the_average_is_the_mean_of_the_last_quarter_of_epoch_ends():
    module = nn.Linear(2, 1, bias=False)
    averages = Averages(Average(start=0.75), epochs=8)
    for epoch in range(8):
        module.weight.data.fill_(float(epoch))
        averages.end_epoch(module, epoch)
    assert averages.module().weight.tolist() == [[6.5, 6.5]]


def test_the_bits_are_those_of_torch():
    torch.manual_seed(1)
    module = nn.Sequential(nn.Linear(7, 33), nn.BatchNorm1d(33))
    ours, theirs = AveragedModel(module), AveragedModel(module)
    for _ in range(6):
        for tensor in (*module.parameters(), module[1].running_mean):
            tensor.data.normal_()
        update(ours, module)
        theirs.update_parameters(module)
        pairs = zip(ours.state_dict().items(), theirs.state_dict().items(), strict=True)
        assert all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)


def test_runs_of_several_lengths_average_in_turn_each_as_if_alone():
    module, means = nn.Linear(2, 1, bias=False), {}
    averages = Averages(
        Average(start=0.75), epochs=11, milestones=(4, 8)
    )  # the ends of epoch 3, of 6 and 7, of 8 to 10
    for epoch in range(11):
        module.weight.data.fill_(float(epoch))
        averages.end_epoch(module, epoch)
        means[epoch] = averages.module() and averages.module().weight.tolist()
    assert [means[epoch] for epoch in (3, 7, 10)] == [[[3.0, 3.0]], [[6.5, 6.5]], [[9.0, 9.0]]]
    assert [means[epoch] for epoch in (0, 4, 5)] == [None, None, None]


def test_averages_come_back_from_their_state():
    module = nn.Linear(2, 1)
    averages = Averages(Average(start=0.0), epochs=2)
    averages.end_epoch(module, 0)
    again = Averages(Average(start=0.0), epochs=2)
    again.restore(module, averages.state())
    module.weight.data.add_(1)
    averages.end_epoch(module, 1)
    again.end_epoch(module, 1)
    assert torch.equal(averages.module().weight, again.module().weight)


def test_without_a_spec_nothing_is_averaged():
    averages = Averages(None, epochs=2)
    averages.end_epoch(nn.Linear(1, 1), 1)
    assert averages.module() is None
    assert averages.state() == {}


def test_fresh_batch_norm_statistics_are_those_of_the_batches_and_leave_the_generator_alone():
    network = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(3))
    live = copy.deepcopy(network)
    batches = [torch.randn(64, 3) * 2 + 5 for _ in range(4)]
    before = torch.get_rng_state()
    refresh_batch_norm(network, lambda: batches, seed=1)
    first = network[1].running_mean.clone()
    assert torch.equal(torch.get_rng_state(), before)
    refresh_batch_norm(network, lambda: batches, seed=1)
    assert torch.equal(network[1].running_mean, first)
    assert torch.allclose(first, torch.full((3,), 5.0), atol=1.0)  # dropout keeps the mean
    assert torch.equal(live[1].running_mean, torch.zeros(3))


def test_fresh_batch_norm_statistics_have_the_bits_of_torch():
    torch.manual_seed(1)
    ours = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.BatchNorm1d(5, momentum=0.3)).eval()
    theirs = copy.deepcopy(ours)
    batches = [torch.randn(16, 3) for _ in range(7)]
    refresh_batch_norm(ours, lambda: batches, seed=1)
    update_bn(batches, theirs)
    assert all(torch.equal(a, b) for a, b in zip(ours.buffers(), theirs.buffers(), strict=True))
    assert (ours[1].momentum, ours[3].momentum, ours.training) == (0.1, 0.3, False)
