"""The switch of the lips against the sum over all of its paths."""

import itertools
import math

import pytest
import torch

from avse_ppl.models.visual.gate import Switch
from avse_ppl.models.visual.switch import (
    draw_prior,
    draw_switch,
    evidence,
    probability,
    transitions,
)


def scores(time):
    score = torch.rand(2, time, dtype=torch.float64, generator=torch.Generator().manual_seed(time))
    score[0, 0] = 0.0
    score[1, -1] = 1.0
    return score


def branches(time, rows=4):
    return 3.0 * torch.randn(rows, time, 2, dtype=torch.float64, generator=torch.manual_seed(0))


def by_enumeration(logs, steps):
    """Evidence of each prefix, and probabilities, of one row, over all paths."""
    time = len(logs)
    joint = {}
    for path in itertools.product((0, 1), repeat=time):
        log = steps[0, 0, path[0]] + logs[0, path[0]]
        for t in range(1, time):
            log = log + steps[t, path[t - 1], path[t]] + logs[t, path[t]]
        joint[path] = math.exp(float(log))
    total = sum(joint.values())
    on = [sum(p for path, p in joint.items() if path[t]) / total for t in range(time)]
    return math.log(total), torch.tensor(on, dtype=torch.float64)


@pytest.mark.parametrize("time", [1, 2, 3, 7])
@pytest.mark.parametrize("persistence", [0.0, 0.9])
def test_the_scan_is_the_sum_over_all_paths(time, persistence):
    switch, logs = Switch(scores(time), persistence), branches(time)
    steps = transitions(switch)
    for row in range(4):  # two draws of two recordings
        total, on = by_enumeration(logs[row], steps[row % 2])
        assert float(evidence(logs, switch)[row].sum()) == pytest.approx(total, abs=1e-9)
        torch.testing.assert_close(probability(logs, switch)[row], on, atol=1e-9, rtol=0)


def test_each_frame_has_its_density_given_those_before_it():
    switch, logs = Switch(scores(7), 0.9), branches(7)
    whole = evidence(logs, switch).cumsum(1)
    for time in (1, 4):
        part = Switch(switch.score[:, :time], 0.9)
        shorter = evidence(logs[:, :time], part).sum(1)
        torch.testing.assert_close(whole[:, time - 1], shorter)


def test_the_prior_of_the_switch_is_its_score_in_every_frame():
    score = torch.tensor([[0.2, 0.9, 0.9, 0.1, 0.6]], dtype=torch.float64)
    torch.manual_seed(0)
    drawn = torch.stack([draw_prior(Switch(score, 0.9)) for _ in range(4000)])
    sd = (score * (1 - score) / 4000).sqrt()
    assert ((drawn.mean(0) - score).abs() < 5 * sd).all()
    # It changes as rarely as the scores allow, or is drawn anew.
    kept = (drawn[:, 0, 1] == drawn[:, 0, 2]).double().mean()
    assert float(kept) == pytest.approx(0.9 + 0.1 * (0.81 + 0.01), abs=0.03)


def test_draws_have_the_probabilities_of_the_paths():
    switch, logs = Switch(scores(5), 0.8), branches(5, rows=2)
    many = logs.repeat(6000, 1, 1)
    uniform = torch.rand(many.shape[:2], generator=torch.Generator().manual_seed(1))
    drawn = draw_switch(many, switch, uniform).double().reshape(6000, 2, 5)
    expected = probability(logs, switch)
    sd = (expected * (1 - expected) / 6000).sqrt() + 1e-9
    assert ((drawn.mean(0) - expected).abs() < 5 * sd).all()
    # Together, too, and not only frame by frame.
    steps, pairs = transitions(switch)[0], drawn[:, 0, 0] * drawn[:, 0, 1]
    joint = torch.zeros(2, 2, dtype=torch.float64)
    for path in itertools.product((0, 1), repeat=5):
        log = steps[0, 0, path[0]] + logs[0, 0, path[0]]
        for t in range(1, 5):
            log = log + steps[t, path[t - 1], path[t]] + logs[0, t, path[t]]
        joint[path[0], path[1]] += log.exp()
    both = joint[1, 1] / joint.sum()
    assert float(pairs.mean()) == pytest.approx(float(both), abs=5 * 0.5 / 6000**0.5)


def test_no_score_leaves_the_law_by_ear():
    switch, logs = Switch(torch.zeros(2, 6, dtype=torch.float64), 0.9), branches(6)
    torch.testing.assert_close(evidence(logs, switch), logs[..., 0])
    sure = Switch(torch.ones(2, 6, dtype=torch.float64), 0.9)
    torch.testing.assert_close(evidence(logs, sure), logs[..., 1])


def test_gradients_are_those_of_finite_differences():
    switch = Switch(scores(6), 0.9)
    logs = branches(6).requires_grad_(True)
    assert torch.autograd.gradcheck(lambda x: evidence(x, switch), (logs,))


def test_the_jax_twin_agrees():
    jax = pytest.importorskip("jax")
    from avse_ppl.models.visual.switch_jax import evidence_jax

    switch, logs = Switch(scores(9), 0.95), branches(9)
    ours = evidence(logs.requires_grad_(True), switch)
    (gradient,) = torch.autograd.grad(ours.sum(), logs)
    with jax.enable_x64(True):
        given = Switch(jax.numpy.asarray(switch.score.numpy()), 0.95)
        array = jax.numpy.asarray(logs.detach().numpy())
        # Compiled as a whole: one operation after the other takes ten times as long.
        theirs = jax.jit(evidence_jax)(array, given)
        slope = jax.jit(jax.grad(lambda x: evidence_jax(x, given).sum()))(array)
    torch.testing.assert_close(torch.tensor(theirs), ours.detach(), rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(torch.tensor(slope), gradient, rtol=1e-8, atol=1e-8)
