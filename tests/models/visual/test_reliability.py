"""Models of visual reliability in a scene, under the routines."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

from avse_ppl import EM, NMF, NUTS, SVI, LatentSpeech, NumPyroNUTS, Scene
from avse_ppl.inference.core.log_density import LogDensity
from avse_ppl.inference.core.video import condition_on_video
from avse_ppl.models.networks import LipEncoder, SequentialVaeNetwork
from avse_ppl.models.visual.reliability import (
    RELIABILITIES,
    Beta,
    Switching,
    audio_only,
    soft,
    ungated,
)
from tests.helpers import STFT

WAVES = np.random.default_rng(0).normal(size=(2, 800)).astype("float32")
TIME, SHORT = STFT.count_frames(800), STFT.count_frames(320)


def make_prior(**settings):
    torch.manual_seed(0)
    network = SequentialVaeNetwork(
        33, 3, 12, 3, 10, visual=4, sight_hidden=8, **{"prior": "gated", **settings}
    ).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    eyes = LipEncoder(4, 4).eval().requires_grad_(False)
    return LatentSpeech(network.requires_grad_(False), visual_encoder=eyes, stft=STFT, name="toy")


@pytest.fixture(scope="module")
def prior():
    return make_prior()


def seen(scores=1.0, recordings=2):
    features = torch.randn(recordings, 4, TIME, generator=torch.Generator().manual_seed(3))
    row = torch.as_tensor(scores, dtype=torch.float32).expand(recordings, 1, TIME).clone()
    return torch.cat((row, (row > 0) * features), 1)


def invert(prior, video, reliability, waves=WAVES, routine=None):
    routine = routine or SVI(steps=4, draws=3, k_hat_draws=0)
    return routine(Scene(prior, NMF(1), reliability), waves, video, seed=0)


@pytest.mark.parametrize("name", RELIABILITIES)
def test_all_frames_missing_is_the_audio_only_answer_to_the_bit(prior, name):
    heard = invert(prior, None, None)
    dark = invert(prior, seen(0.0), RELIABILITIES[name])
    assert np.array_equal(dark.mean, heard.mean)
    assert np.array_equal(dark.speech, heard.speech)


def test_audio_only_is_the_audio_only_answer_with_any_video(prior):
    assert np.array_equal(invert(prior, seen(), audio_only).mean, invert(prior, None, None).mean)


@pytest.mark.parametrize("model", [soft, Switching()], ids=["soft", "switching"])
def test_a_sure_score_is_ungated(prior, model):
    sure = invert(prior, seen(), model)
    np.testing.assert_allclose(sure.mean, invert(prior, seen(), ungated).mean, atol=1e-4)
    np.testing.assert_allclose(sure.reliability, 1.0, atol=1e-5)


def test_ungated_is_no_model_of_reliability(prior):
    ours = invert(prior, seen(), ungated)
    np.testing.assert_allclose(ours.mean, invert(prior, seen(), None).mean, atol=1e-5)
    assert invert(prior, seen(), None).reliability is None


@pytest.mark.parametrize("name", ["soft", "switching", "beta"])
def test_the_posterior_says_how_far_the_lips_counted(prior, name):
    scores = torch.linspace(0.1, 0.9, TIME)
    scores[:3] = 0.0
    found = invert(prior, seen(scores), RELIABILITIES[name])
    assert found.reliability.shape == (2, TIME)
    assert ((found.reliability >= 0) & (found.reliability <= 1)).all()
    if name == "switching":
        assert set(np.unique(found.latents["reliability.switch"])) <= {0.0, 1.0}
        assert (found.latents["reliability.switch"][..., :3] == 0).all()
        assert found.latents["reliability"].shape == (1, 3, 2, TIME)
        assert found.select(1).reliability.shape == (1, TIME)
        assert "reliability" in found.to_arviz().posterior


def test_a_batch_is_its_recordings(prior):
    video = seen(0.6)
    both = invert(prior, video, Switching())
    alone = invert(prior, video[:1], Switching(), waves=WAVES[:1])
    np.testing.assert_allclose(both.mean[:1], alone.mean, atol=1e-5)
    np.testing.assert_allclose(both.reliability[:1], alone.reliability, atol=1e-5)


def test_sound_that_contradicts_the_lips_switches_them_off(prior):
    """Latents drawn from one branch are told from those of the other."""
    scene = Scene(prior, NMF(1), Switching(0.9))
    video = seen(0.5)
    density = LogDensity(scene, condition_on_video(scene, STFT.analyse(WAVES), video))
    from avse_ppl.models.speech.latent_sequence import branch_log_densities
    from avse_ppl.models.visual.gate import Switch
    from avse_ppl.models.visual.switch import probability

    shown = torch.cat((torch.ones(2, 1, TIME), video[:, 1:]), 1)
    fresh = torch.randn(2, 3, TIME, generator=torch.Generator().manual_seed(5))
    switch = Switch(video[:, 0], 0.9)
    on, off = (
        probability(
            branch_log_densities(
                prior.network, prior.network.sample_from_innovations(fresh, v), shown
            ),
            switch,
        )
        for v in (shown, None)
    )
    assert float(on.mean()) > float(off.mean()) + 0.1
    assert len(density.sites) > 0


def test_the_marginal_density_is_the_sum_over_switches(prior):
    """The joint of a scene with a switch against explicit enumeration of its paths."""
    import itertools

    from avse_ppl.models.visual.switch import transitions

    waves, frames = WAVES[:1, :64], STFT.count_frames(64)
    video = seen(0.4, 1)[..., :frames]
    scene = Scene(prior, NMF(1), Switching(0.7))
    density = LogDensity(scene, condition_on_video(scene, STFT.analyse(waves), video))
    values = {site.name: site.transform(site.start) for site in density.sites}
    values["speech.z"] = torch.randn(1, 3, frames, generator=torch.Generator().manual_seed(1))
    steps = transitions(Switching(0.7)(None, video))[0]
    paths = []
    for path in itertools.product((0, 1), repeat=frames):
        log = steps[0, 0, path[0]]
        for t in range(1, frames):
            log = log + steps[t, path[t - 1], path[t]]
        # Each path's frames see or do not see: the factors of a frame go by its own switch.
        by = [Scene(prior, NMF(1), lambda f, v, a=a: torch.full_like(v[:, 0], a)) for a in (0, 1)]
        logs = [_factors(one, density.mixture, values) for one in by]
        paths.append(log + sum(logs[a][t] for t, a in enumerate(path)))
    expected = torch.logsumexp(torch.stack(paths), 0)
    rest = density.joint(values).prior - _of_site(scene, density.mixture, values)
    torch.testing.assert_close(density.joint(values).prior[0] - rest[0], expected)


def _factors(scene, mixture, values):
    from pyro import poutine

    from avse_ppl.models.handlers import reuse_plates

    with poutine.trace() as tracer, poutine.condition(data=values), reuse_plates():  # noqa: SIM117
        with pyro.plate("recording", 1, dim=-3):
            scene.laws(mixture.frames)
    node = tracer.trace.nodes["speech.z"]
    return node["fn"].log_prob(node["value"])[0].sum(0)


def _of_site(scene, mixture, values):
    return _factors(scene, mixture, values).sum()[None]


@pytest.mark.parametrize(
    "routine",
    [
        SVI(steps=3, guide="structured", draws=2, k_hat_draws=0),
        EM(iterations=2),
        EM(e_step="langevin", iterations=4),
        pytest.param(
            NUTS(draws=2, warmup=2, chains=1, max_tree_depth=2, waveforms=False),
            marks=pytest.mark.slow,
        ),
    ],
    ids=["structured", "em", "langevin", "nuts"],
)
@pytest.mark.parametrize("name", ["switching", "beta"])
def test_every_routine_runs_it(prior, routine, name):
    video = seen(0.7, 1)[..., :SHORT]
    found = invert(prior, video, RELIABILITIES[name], WAVES[:1, :320], routine=routine)
    assert np.isfinite(found.mean).all()
    assert np.isfinite(found.reliability).all()


def test_jax_sums_out_the_same_switch(prior):
    pytest.importorskip("numpyro")
    import jax

    from avse_ppl.inference.mcmc.jax_log_density import (
        list_recordings,
        make_jax_log_density,
        to_jax,
    )

    scene, video = Scene(prior, NMF(1), Switching()), seen(0.7, 1)[..., :SHORT]
    density = LogDensity(scene, condition_on_video(scene, STFT.analyse(WAVES[:1, :320]), video))
    latents = {site.name: site.start.clone() for site in density.sites}
    latents["speech.z"] = torch.randn(1, 3, SHORT, generator=torch.Generator().manual_seed(2))
    latents["speech.z"].requires_grad_(True)
    ours = density(latents)
    (slope,) = torch.autograd.grad(ours.sum(), latents["speech.z"])
    made = make_jax_log_density(density)  # which compares the two at the median of the prior
    (recording,) = list_recordings(density)
    given = {name: to_jax(value) for name, value in latents.items()}
    counterpart = jax.jit(
        jax.value_and_grad(lambda u: made(u, recording)),
        compiler_options={"xla_backend_optimization_level": 0},  # it runs once
    )
    theirs, gradient = counterpart(given)
    np.testing.assert_allclose(float(theirs), float(ours.detach()), rtol=1e-4)
    np.testing.assert_allclose(gradient["speech.z"], slope, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_numpyro_runs_the_switch(prior):
    pytest.importorskip("numpyro")
    routine = NumPyroNUTS(
        draws=25, warmup=25, chains=1, metrics=1, max_tree_depth=2, init_steps=3, waveforms=False
    )
    found = invert(prior, seen(0.7, 1)[..., :SHORT], Switching(), WAVES[:1, :320], routine=routine)
    assert np.isfinite(found.reliability).all()


def test_long_recordings_keep_how_far_the_lips_counted(prior):
    from avse_ppl.posterior.combine import crossfade_chunks

    parts = [invert(prior, seen(0.6, 1), Switching(), WAVES[r : r + 1]) for r in range(2)]
    whole = crossfade_chunks(parts, [(0, 800), (640, 1440)], 1440)
    assert whole.reliability.shape == (1, STFT.count_frames(1440))
    np.testing.assert_allclose(whole.reliability[0, :35], parts[0].reliability[0, :35], atol=1e-6)
    blind = invert(prior, None, None, WAVES[:1])
    assert crossfade_chunks([parts[0], blind], [(0, 800), (640, 1440)], 1440).reliability is None


def test_the_picture_shows_how_far_the_lips_counted(prior, tmp_path):
    from avse_ppl.plotting import plot_posterior

    found = invert(prior, seen(0.6, 1), Switching(), WAVES[:1])
    assert plot_posterior(found, tmp_path / "seen.png").stat().st_size > 10_000


# What it refuses


def refused(prior, reliability, text, video=None):
    with pytest.raises(ValueError, match=text):
        invert(prior, seen() if video is None else video, reliability)


def test_a_gate_outside_its_range_or_of_another_length_is_refused(prior):
    refused(prior, lambda f, v: 2.0 * v[:, 0], r"from 2 to 2; expected all within \[0, 1\]")
    refused(prior, lambda f, v: v[:, 0, :-1], r"expected a tensor of shape \(recording=2")
    refused(prior, lambda f, v: 0.5, "returned float")
    refused(prior, lambda f, v: v[:, 0] * float("nan"), "values from nan")


@pytest.mark.parametrize("settings", [{"decoder_sees": True}, {"prior": "recurrent"}])
def test_a_prior_that_cannot_switch_says_what_can(settings):
    refused(make_prior(**settings), Switching(), "take the reliability 'soft' or 'beta'")


def test_settings_are_checked():
    with pytest.raises(ValueError, match="persistence must be in"):
        Switching(1.0)
    with pytest.raises(ValueError, match="concentration must be positive"):
        Beta(0.0)


def test_a_function_of_yours_may_sample(prior):
    def shaky(frames, visual):
        level = pyro.sample("trust", dist.Beta(torch.tensor(2.0), torch.tensor(2.0)))
        return level[..., 0, :] * visual[:, 0]

    found = invert(prior, seen(), shaky)
    assert found.latents["trust"].shape == (1, 3, 2, 1, 1)
    assert np.isfinite(found.mean).all()
