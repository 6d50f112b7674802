"""Audio-visual predictor: the trunk without lips, the window, the null key, what learns."""

from __future__ import annotations

import pytest
import torch

from avse_ppl.models.networks import attention_fusion
from avse_ppl.models.networks.attention_fusion import (
    BOUND,
    AttentionFusionNetwork,
    LocalAttention,
)
from avse_ppl.training.phases.av_predictor import freeze_trunk

FEATURES, FRAMES = 3, 40


@pytest.fixture
def network() -> AttentionFusionNetwork:
    """One whose fusion has learned something."""
    torch.manual_seed(0)
    found = AttentionFusionNetwork(
        257, (4, 8), 12, 1, 2, visual=FEATURES, heads=2, width=4, window=5, blocks=1
    )
    torch.nn.init.normal_(found.output.weight)
    torch.nn.init.normal_(found.output.bias)
    return found.eval().requires_grad_(False)


def make_mixture(seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 257, FRAMES, dtype=torch.complex64, generator=generator)


def make_visual(reliability: float = 1.0, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    visual = torch.randn(2, 1 + FEATURES, FRAMES, generator=generator)
    visual[:, 0] = reliability
    return visual


def test_an_untrained_fusion_is_its_trunk() -> None:
    fresh = AttentionFusionNetwork(257, (4, 8), 12, 1, 2, visual=FEATURES, heads=2, width=4)
    mixture, heard = make_mixture(), fresh.trunk(make_mixture())
    for found in (fresh(mixture), fresh(mixture, visual=make_visual())):
        assert torch.equal(found.speech, heard.speech)
        assert torch.equal(found.log_error, heard.log_error)


def test_without_reliable_lips_the_answer_is_the_trunks_bit_for_bit(network) -> None:
    mixture = make_mixture()
    heard, unreliable = network.trunk(mixture), make_visual(0.0)
    unreliable[:, 1:, ::3] = torch.nan  # whatever stands there
    for found in (network(mixture), network(mixture, visual=unreliable)):
        assert torch.equal(found.speech, heard.speech)
        assert torch.equal(found.log_error, heard.log_error)
    seen = network(mixture, visual=make_visual())
    assert (seen.speech - heard.speech).abs().max() > 1e-3
    assert (seen.log_error - heard.log_error).abs().max() > 1e-3
    causal = network(mixture, causal=True, visual=make_visual())
    assert torch.equal(causal.speech, network.trunk(mixture, True).speech)


def test_a_stretch_without_lips_is_the_trunks_beyond_the_window(network) -> None:
    mixture, visual = make_mixture(), make_visual()
    visual[:, 0, 10:30] = 0.0
    heard, found = network.trunk(mixture), network(mixture, visual=visual)
    same = (found.speech == heard.speech).all(1).all(0)
    assert same[15:25].all()  # five frames to either side
    assert not same[:15].any() and not same[25:].any()


def test_little_reliability_changes_little_whatever_has_been_learned(network) -> None:
    mixture = make_mixture()
    for layer in (network.attention.query, network.attention.key, network.output):
        layer.weight.mul_(100.0)  # scores and corrections that would outdo it
    hidden, ends = network.hear(mixture)
    most = {
        r: float(network.correct(hidden, ends, make_visual(r)).abs().max())
        for r in (1e-4, 0.1, 0.3, 1.0)
    }
    assert most[1.0] > 0.5 * BOUND  # they are large
    for reliability, largest in most.items():
        assert 0.0 < largest <= 1.001 * BOUND * reliability
    # A share of the frames that are not reliable counts for no more than it is worth.
    mixed = make_visual()
    mixed[:, 0] = 1e-6
    mixed[:, 0, 20] = 0.5
    found = network.correct(hidden, ends, mixed).abs().amax((0, 2, 3))
    assert found[10] < 1e-4 and found.max() <= 0.501 * BOUND


def test_the_answer_is_continuous_in_reliability(network) -> None:
    mixture, lost = make_mixture(), make_visual()
    lost[:, 0, 12:] = 0.0
    near = lost.clone()
    near[:, 0, 12:] = 1e-6
    near[:, 1:] -= near[:, 1:].mean(-1, keepdim=True)
    lost[:, 1:] = near[:, 1:]
    lost[:, 1:, 12:] = near[:, 1:, 12:] = 0.0  # so that their means agree
    lost[:, 1:, :12] -= lost[:, 1:, :12].mean(-1, keepdim=True)
    near[:, 1:, :12] = lost[:, 1:, :12]
    found, again = (network(mixture, visual=one).speech for one in (lost, near))
    torch.testing.assert_close(found, again, rtol=1e-3, atol=1e-3)


def test_what_is_compared_is_the_trunk_and_the_answer_with_lips(network) -> None:
    mixture, visual = make_mixture(), make_visual(0.6)
    alone, seen = network.compare(mixture, visual)
    assert torch.equal(alone.speech, network.trunk(mixture).speech)
    assert torch.equal(seen.speech, network(mixture, visual=visual).speech)


def test_what_stays_the_same_in_a_face_tells_nothing(network) -> None:
    mixture, visual = make_mixture(), make_visual()
    visual[:, 0, 30:] = 0.0
    other = visual.clone()
    other[:, 1:] += 3.0
    other[:, 1:, 30:] += 7.0  # where no lips are
    found, again = (network(mixture, visual=one).speech for one in (visual, other))
    torch.testing.assert_close(found, again, rtol=1e-4, atol=1e-5)


def test_attention_looks_within_its_window_only() -> None:
    torch.manual_seed(0)
    attention = LocalAttention(6, FEATURES, heads=2, width=4, window=5).requires_grad_(False)
    audio, visual = torch.randn(1, FRAMES, 6), make_visual()[:1]
    other = visual.clone()
    other[:, 1:, 20] += 3.0
    moved = (attention(audio, other)[0] - attention(audio, visual)[0]).abs().amax((0, 2)) > 1e-6
    assert moved.nonzero()[:, 0].tolist() == list(range(15, 26))
    # Frames that are exchanged within all windows are told apart by their lag alone.
    short, swapped = visual[..., :4].clone(), visual[..., [1, 0, 2, 3]]
    found, again = (attention(audio[:, :4], one)[0] for one in (short, swapped))
    torch.testing.assert_close(found, again)
    torch.nn.init.normal_(attention.lag_bias)
    assert (attention(audio[:, :4], short)[0] - attention(audio[:, :4], swapped)[0]).abs().max() > 0


def test_long_recordings_are_attended_from_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    attention = LocalAttention(6, FEATURES, heads=2, width=4, window=5).requires_grad_(False)
    torch.nn.init.normal_(attention.lag_bias)
    audio, visual = torch.randn(2, FRAMES, 6), make_visual()
    visual[:, 0] = torch.rand(2, FRAMES)
    whole = attention(audio, visual)
    monkeypatch.setattr(attention_fusion, "_BLOCK", 7)
    for one, other in zip(whole, attention(audio, visual), strict=True):
        torch.testing.assert_close(one, other)


def test_what_is_gathered_is_the_share_of_equal_scores_times_their_reliability() -> None:
    attention = LocalAttention(6, FEATURES, heads=2, width=4, window=2).requires_grad_(False)
    for layer in (attention.query, attention.key):
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    mass = attention(torch.randn(1, FRAMES, 6), make_visual(0.5)[:1])[1]
    assert mass[0, 5].item() == pytest.approx(0.5 * 0.5 / (1.0 + 0.5))
    assert mass[0, 0].item() == pytest.approx(0.5 * 0.3 / (1.0 + 0.3))  # three frames of five


def test_only_the_fusion_learns_and_all_of_it(network) -> None:
    freeze_trunk(network)
    found = network(make_mixture(), visual=make_visual())
    (found.speech.abs().sum() + found.log_error.sum()).backward()
    for name, parameter in network.named_parameters():
        if name.startswith("trunk."):
            assert parameter.grad is None, name
        else:
            assert parameter.grad is not None and bool(parameter.grad.any()), name


def test_the_shipped_sizes_stay_under_three_million_parameters() -> None:
    assert sum(p.numel() for p in AttentionFusionNetwork(257).parameters()) < 3e6
