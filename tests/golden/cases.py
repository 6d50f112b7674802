"""What is computed for the golden values: one function a case, by way of the public interface.

A case returns named arrays and texts of one run: of a network, or of a routine on a second or less
of a bundled recording. Settings are those that make it short, not those that make it good. Each
case starts as every test does (`start`), on one thread, so that its bits can be compared.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pyro.poutine as poutine
import torch
from threadpoolctl import threadpool_limits

import avse_ppl
from avse_ppl import (
    EM,
    HMC,
    NUTS,
    SVI,
    Audio,
    ComplexNormal,
    Exact,
    GaussianScore,
    GaussianSpeech,
    GuidedDiffusion,
    NumPyroNUTS,
    Posterior,
    Scene,
    Stft,
    UDiffSE,
    load_audio,
    load_speech,
    stationary,
)
from avse_ppl.data import highpass, mix
from avse_ppl.models import Vp, load_noise
from avse_ppl.pipeline.catalog import (
    INFERENCE_METHODS,
    NOISE_MODELS,
    resolve_inference,
    resolve_noise,
    resolve_reliability,
    speech_names,
)
from avse_ppl.video import Lips, read_lips
from avse_ppl.video.quality.score import score_lips

DATA = Path(__file__).parents[2] / "examples" / "data"
RATE_HZ = 16000
AUDIO_ONLY = ("tcvae", "rvae", "vae", "dkf", "srnn")
AUDIO_VISUAL = ("av-dkf", "av-cvae", "av-rvae", "av-vae", "latent-diffusion")
FRAMES = 24  # of the networks' made-up input
Values = dict[str, Any]  # arrays, and texts


@dataclass(frozen=True)
class Case:
    """One computation and how near its values have to be to the stored ones.

    Parameters
    ----------
    run
        Computes the values.
    tolerance
        A share of each array's root mean square, plus the same share of the value.
    slow
        Whether it is left out by default.
    spared
        Share of an array's values that may be further off: where a proposal may be accepted on one
        processor and refused on another, by a rounding error.
    held
        The arrays that have to be so near, None for all. All of them count for the digests.
    """

    run: Callable[[], Values]
    tolerance: float
    slow: bool = False
    spared: float = 0.0
    held: tuple[str, ...] | None = None


CASES: dict[str, Case] = {}


def case(
    name: str, tolerance: float, /, *, slow: bool = False, spared: float = 0.0,
    held: tuple[str, ...] | None = None, **settings: Any,
) -> Callable[..., Any]:  # fmt: skip
    """Add a function, with these arguments, to the cases."""

    def added(function: Callable[..., Values]) -> Callable[..., Values]:
        if name in CASES:
            raise ValueError(f"there are two cases {name!r}")
        CASES[name] = Case(lambda: function(**settings), tolerance, slow, spared, held)
        return function

    return added


def compute(name: str) -> Values:
    """Values of a case, from the start that every test has, on one thread."""
    with one_thread():
        start()
        return CASES[name].run()


def start() -> None:
    """Start as the fixture for all tests does (``conftest.py``)."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    pyro.set_rng_seed(0)
    pyro.clear_param_store()


@contextmanager
def one_thread() -> Iterator[None]:
    """Run on one thread: how sums are split among threads changes their last bits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):  # numpy's, too
            yield
    finally:
        torch.set_num_threads(threads)


# --- what is enhanced ----------------------------------------------------------------------------


@cache
def sounds() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A sentence, the sentence of the mouth, and rain."""
    names = ("speech.flac", "mouth.mkv", "rain.flac")
    return tuple(load_audio(DATA / name).mono().samples for name in names)  # type: ignore[return-value]


@cache
def mouth() -> Lips:
    return read_lips(DATA / "mouth.mkv")


def noisy(length_s: float = 1.0, *, av: bool = False) -> np.ndarray:
    """Speech from 0.6 s on, in as much rain."""
    begin, n = round(0.6 * RATE_HZ), round(length_s * RATE_HZ)
    speech = sounds()[1 if av else 0][begin : begin + n].astype("float32")
    rain = sounds()[2][begin : begin + n].astype("float32")
    gain = np.sqrt(np.mean(speech.astype("float64") ** 2) / np.mean(rain.astype("float64") ** 2))
    return speech + np.float32(gain) * rain


def lips() -> Lips:
    """The mouth on the clock of what `noisy` cuts out."""
    return mouth().shifted(-0.6)


def speech_named(name: str) -> Any:
    return GaussianSpeech() if name == "gaussian" else load_speech(name)


# --- networks ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Input:
    """Made-up input of networks, two recordings."""

    power: torch.Tensor
    noisy: torch.Tensor
    visual: torch.Tensor
    z: torch.Tensor
    level: torch.Tensor


def made_up(latent: int = 16) -> Input:
    rng = np.random.default_rng(0)
    tilt = 10 ** (-2.0 * np.arange(513) / 512)[:, None]
    envelope = 10 ** rng.normal(0.0, 0.5, (2, 1, FRAMES))
    power = 3.0 * tilt * envelope * rng.exponential(size=(2, 513, FRAMES))
    phase = np.exp(2j * np.pi * rng.random(power.shape))
    gate = np.clip(rng.uniform(-0.2, 1.2, (2, 1, FRAMES)), 0.0, 1.0)
    visual = np.concatenate([gate, gate * rng.normal(size=(2, 64, FRAMES))], axis=1)
    z, level = rng.normal(size=(2, latent, FRAMES)), rng.normal(size=(2, 1, 1))
    return Input(
        torch.from_numpy(power.astype("float32")),
        torch.from_numpy((power**0.25 * phase).astype("complex64")),
        *(torch.from_numpy(a.astype("float32")) for a in (visual, z, level)),
    )


def frames() -> Any:
    return Stft().frames((FRAMES - 1) * Stft().hop)


def law(model: Callable[..., ComplexNormal], *given: Any, **values: torch.Tensor) -> Values:
    """Power that latents are mapped to, and the log density of those latents."""
    conditioned = poutine.condition(model, data=values)
    with torch.no_grad(), pyro.plate("recording", 2, dim=-3):
        trace = poutine.trace(conditioned).get_trace(*given)
        trace.compute_log_prob()
    sites = [n for n in trace.stochastic_nodes + trace.observation_nodes if n in values]
    densities = {f"log_prob.{n}": trace.nodes[n]["log_prob"].numpy() for n in sites}
    returned = trace.nodes["_RETURN"]["value"].power
    return {"log_power": returned.log().expand(2, 513, FRAMES).numpy(), **densities}


def drawn(model: Callable[..., ComplexNormal], *given: Any) -> np.ndarray:
    """Log power of a draw of the prior."""
    with torch.no_grad(), pyro.plate("recording", 2, dim=-3):
        return model(*given).power.log().expand(2, 513, FRAMES).numpy()


def of_latents(name: str, *, audio_visual: bool) -> Values:
    """Encoder, decoder and law of the latents, without and with visual features."""
    prior = load_speech(name)
    given = made_up(prior.network.latent)  # type: ignore[union-attr]
    found: Values = {}
    for how, visual in {"heard": None, **({"seen": given.visual} if audio_visual else {})}.items():
        guess = prior.encode(given.power, visual)  # type: ignore[union-attr]
        for site, (mean, sd) in guess.items():
            found |= {f"{how}.{site}.mean": mean.numpy(), f"{how}.{site}.sd": sd.numpy()}
        at = {"speech.z": given.z, "speech.level": given.level}
        found |= {f"{how}.{k}": v for k, v in law(prior, frames(), visual, **at).items()}
        found[f"{how}.drawn"] = drawn(prior, frames(), visual)
    return found


for _name in AUDIO_ONLY:
    case(f"network-{_name}", 1e-4, name=_name, audio_visual=False)(of_latents)
for _name in AUDIO_VISUAL:
    case(f"network-{_name}", 1e-4, name=_name, audio_visual=True)(of_latents)


@case("network-latent-diffusion-denoiser", 1e-4)
def latent_denoiser() -> Values:
    network: Any = load_speech("latent-diffusion").network  # type: ignore[union-attr]
    return denoised(network.denoise, made_up().z)


@case("network-score", 1e-4)
def score_network() -> Values:
    return denoised(load_speech("score").denoise, made_up().noisy)  # type: ignore[union-attr]


def denoised(denoise: Callable[..., Any], given: torch.Tensor) -> Values:
    """Answers of a denoiser at a low and a high level of noise, with features and without."""
    found: Values = {}
    for how, visual in (("heard", None), ("seen", made_up().visual)):
        with torch.no_grad():
            mean, variance = denoise(given, torch.tensor([0.1, 1.5]), visual)
        found |= {f"{how}.mean": mean.numpy(), f"{how}.variance": variance.numpy()}
    return found


@case("network-noise_vae", 1e-4)
def noise_network() -> Values:
    prior = load_noise("noise_vae")
    given = made_up(prior.network.latent)
    generator = torch.Generator().manual_seed(0)
    begun = prior.initial(given.power, given.power, generator)
    knots = torch.linspace(-1.0, 1.0, 18).reshape(2, 9, 1)
    at = {"noise.z": given.z, "noise.level": given.level, "noise.equaliser": knots}
    return {
        **{f"initial.{k}": v.numpy() for k, v in begun.items()},
        **law(prior, frames(), **at),
        "drawn": drawn(prior, frames()),
    }


@case("network-reliability", 1e-4)
def reliability_network() -> Values:
    """How far the bundled mouth is believed: silent, with its sound, with another, and nonsense."""
    own, other = sounds()[1], np.roll(sounds()[1], RATE_HZ)
    blocks = np.random.default_rng(0).integers(0, 255, (40, 88, 88), dtype=np.uint8)
    judged = {
        "silent": score_lips(mouth()),
        "own": score_lips(mouth(), Audio(own, RATE_HZ)),
        "other": score_lips(mouth(), Audio(other, RATE_HZ)),
        "nonsense": score_lips(Lips.from_crops(blocks, rate_hz=25)),
    }
    found: Values = {}
    for how, one in judged.items():
        found |= {f"{how}.score": one.score, f"{how}.cause": one.cause_probability}
        if how in ("own", "other"):
            found[f"{how}.agreement"] = np.nan_to_num(one.agreement, nan=-1.0)
    return found


@case("network-lips", 1e-4)
def lips_network() -> Values:
    prior: Any = load_speech("av-dkf")
    blocks = np.random.default_rng(0).integers(0, 255, (20, 88, 88), dtype=np.uint8)
    crops = Lips.from_crops(blocks, rate_hz=25)
    return {
        "mouth": prior.visual_features(lips(), Stft().frames(RATE_HZ)).numpy(),
        "nonsense": prior.visual_features(crops, Stft().frames(RATE_HZ // 2)).numpy(),
        "crops": mouth().roi,
    }


# --- routines ------------------------------------------------------------------------------------


def answers(posterior: Posterior) -> Values:
    """What a posterior says: moments, one waveform, latents, trace, and what it is."""
    waveform = {"waveform": posterior.speech[-1, -1]} if posterior.speech.size else {}
    believed = {} if posterior.reliability is None else {"reliability": posterior.reliability}
    return {
        "mean": posterior.mean, "variance": posterior.variance, **waveform, **believed,
        **{f"latents.{name}": values for name, values in posterior.latents.items()},
        **{f"trace.{name}": values for name, values in posterior.trace.items()},
        **{f"stats.{name}": values for name, values in posterior.stats.items()},
        "kind": posterior.kind,
    }  # fmt: skip


def inverted(
    routine: Callable[..., Posterior], speech: str = "tcvae", noise: Any = "nmf",
    length_s: float = 1.0,
) -> Values:  # fmt: skip
    scene = Scene(speech_named(speech), resolve_noise(noise))
    return answers(routine(scene, noisy(length_s), seed=0))


def infer_av(
    routine: Callable[..., Posterior], speech: str = "av-dkf", reliability: str = "soft",
    length_s: float = 1.0,
) -> Values:  # fmt: skip
    scene = Scene(load_speech(speech), resolve_noise("nmf"), resolve_reliability(reliability))
    return answers(routine(scene, noisy(length_s, av=True), lips(), seed=0))


SVI_SHORT = {"steps": 8, "draws": 3, "k_hat_draws": 0}
for _guide in ("mean-field", "structured", "low-rank"):
    case(f"svi-{_guide}", 1e-3, routine=SVI(guide=_guide, **SVI_SHORT))(inverted)
case("svi-tempered", 1e-3, routine=SVI(tempering=0.25, **SVI_SHORT))(inverted)
case("svi-float64", 1e-4, routine=SVI(dtype=torch.float64, **SVI_SHORT))(inverted)
for _name in ("gaussian", *(n for n in AUDIO_ONLY if n != "tcvae"), *AUDIO_VISUAL):
    case(f"svi-{_name}", 1e-3, routine=SVI(**SVI_SHORT), speech=_name)(inverted)
for _name in ("soft", "switching", "beta", "ungated", "audio-only"):
    case(f"svi-av-dkf-{_name}", 1e-3, routine=SVI(**SVI_SHORT), reliability=_name)(infer_av)
for _name in ("av-cvae", "av-rvae", "av-vae", "latent-diffusion"):
    case(f"svi-{_name}-video", 1e-3, routine=SVI(**SVI_SHORT), speech=_name)(infer_av)
for _name, _noise in {
    "stationary": "stationary", "sum": "nmf(4)+hum(50)+clicks", "learned": "learned", "ar1": "ar1",
    "student-t": "student-t", "student-t-4": "student-t(4)", "alpha-stable": "alpha-stable",
    "wind": "stationary+wind",
}.items():  # fmt: skip
    case(f"svi-noise-{_name}", 1e-3, routine=SVI(**SVI_SHORT), noise=_noise)(inverted)

EM_SHORT = {"iterations": 8, "draws": 3, "tempering": 0.4}
for _step, _settings in {
    "point": {}, "langevin": {"step_size": 0.4},
    "mala": {"e_steps": 2, "step_size": 0.2, "warm_up": 3},
    "mh": {"e_steps": 6, "step_size": 1.0, "warm_up": 3}, "variational": {"step_size": 0.1},
}.items():  # fmt: skip
    # What is accepted or not differs by 6e-3 between makes of processor.
    _near = 1e-2 if _step in ("mala", "mh") else 2e-3
    case(f"em-{_step}", _near, routine=EM(e_step=_step, **EM_SHORT, **_settings))(inverted)
# Its frames are accepted one by one, in two thousand decisions.
case(
    "em-mh-vae", 1e-2, spared=0.1, routine=EM("mh", iterations=8, e_steps=4, draws=3), speech="vae"
)(inverted)

CHAIN_SHORT = {"draws": 3, "warmup": 3, "chains": 1, "init_steps": 5}
for _name, _routine in {
    "nuts": NUTS(max_tree_depth=3, **CHAIN_SHORT), "hmc": HMC(steps=3, **CHAIN_SHORT),
}.items():  # fmt: skip
    for _speech, _noise in (("gaussian", "stationary"), ("vae", "nmf")):
        case(
            f"{_name}-{_speech}", 5e-3, routine=_routine, speech=_speech, noise=_noise, length_s=0.3
        )(inverted)
case("nuts-float64", 1e-3, routine=NUTS(max_tree_depth=2, dtype=torch.float64, **CHAIN_SHORT),
     speech="gaussian", noise="stationary", length_s=0.3)(inverted)  # fmt: skip
case("nuts-av-dkf-switching", 1e-2, routine=NUTS(max_tree_depth=2, **CHAIN_SHORT), length_s=0.3,
     reliability="switching")(infer_av)  # fmt: skip

# What JAX compiles differs by more, from processor to processor, than torch does, and its short
# adaptation makes more of it. Most of the time is spent compiling.
_JAX = NumPyroNUTS(max_tree_depth=3, metrics=1, **CHAIN_SHORT)
_HELD = {"spared": 0.2, "held": ("mean", "waveform", "stats.lp"), "length_s": 0.3}
for _speech, _noise in (("gaussian", "stationary"), ("vae", "nmf")):
    case(f"numpyro-nuts-{_speech}", 0.1, slow=_speech != "gaussian", routine=_JAX, speech=_speech,
         noise=_noise, **_HELD)(inverted)  # fmt: skip
_JAX = NumPyroNUTS(max_tree_depth=2, metrics=1, **CHAIN_SHORT)
for _name in ("tcvae", "rvae", "dkf"):
    case(f"numpyro-nuts-{_name}", 0.1, slow=True, routine=_JAX, speech=_name, **_HELD)(inverted)
for _name in ("soft", "switching", "beta"):
    case(f"numpyro-nuts-av-dkf-{_name}", 0.1, slow=True, routine=_JAX, reliability=_name, **_HELD)(
        infer_av
    )


def jax_joint(speech: str, reliability: str | None = None) -> Values:
    """Log joint density on JAX, and its gradient, at a point near where inference starts."""
    import jax

    from avse_ppl.inference.core.log_density import LogDensity
    from avse_ppl.inference.core.video import condition_on_video
    from avse_ppl.inference.mcmc.jax_log_density import (
        list_recordings,
        make_jax_log_density,
        to_jax,
    )

    gate = None if reliability is None else resolve_reliability(reliability)
    scene = Scene(speech_named(speech), resolve_noise("nmf"), gate)
    mixture = Stft().analyse(noisy(0.3, av=reliability is not None))
    density = LogDensity(scene, condition_on_video(scene, mixture, lips() if reliability else None))
    made, recording = make_jax_log_density(density), list_recordings(density)[0]
    rng = np.random.default_rng(0)
    at = {
        site.name: site.start + 0.3 * torch.from_numpy(rng.normal(size=site.shape)).float()
        for site in density.sites
    }
    arrays = {name: to_jax(value[:1]) for name, value in at.items()}

    def evaluate(latents: Any) -> Any:
        joint = made.joint(latents, recording)
        slope = jax.grad(lambda point: made(point, recording))(latents)
        return {"likelihood": joint.likelihood, "prior": joint.prior}, slope

    parts, slope = jax.jit(evaluate)(arrays)  # compiled as a whole, not operation by operation
    found = parts | {f"slope.{name}": value for name, value in slope.items()}
    return {name: np.asarray(value) for name, value in found.items()}


for _name in ("gaussian", "vae", "rvae", "tcvae", "dkf", "srnn"):
    case(f"jax-density-{_name}", 1e-4, slow=_name not in ("gaussian", "dkf"), speech=_name)(
        jax_joint
    )
for _name in ("soft", "switching", "beta"):
    case(
        f"jax-density-av-dkf-{_name}",
        1e-4,
        slow=_name != "soft",
        speech="av-dkf",
        reliability=_name,
    )(jax_joint)

_LATENT = GuidedDiffusion(sweeps=3, draws=4)
case("guided-latent-diffusion", 1e-3, routine=_LATENT, speech="latent-diffusion")(inverted)
case("guided-latent-diffusion-video", 1e-3, routine=_LATENT, speech="latent-diffusion")(infer_av)
case(
    "guided-latent-diffusion-switching", 1e-3, speech="latent-diffusion", reliability="switching",
    routine=GuidedDiffusion(sweeps=3, draws=4, base_prior_av="av-dkf"),
)(infer_av)  # fmt: skip
case("guided-gaussian", 1e-3, routine=GuidedDiffusion(steps=4, sweeps=3, draws=4),
     speech="gaussian")(inverted)  # fmt: skip
case("guided-vae", 1e-3, routine=_LATENT, speech="vae")(inverted)
_BINS = {"steps": 3, "sweeps": 2, "chains": 1, "draws": 2}
case("guided-score", 1e-3, routine=GuidedDiffusion(**_BINS), speech="score", length_s=0.5)(inverted)
case("guided-score-warm", 1e-3, routine=GuidedDiffusion(base_prior="latent-diffusion", **_BINS),
     speech="score", length_s=0.5)(inverted)  # fmt: skip
case("guided-score-video", 1e-3, routine=GuidedDiffusion(**_BINS), speech="score")(infer_av)
_PUBLISHED = {"em_iterations": 2, "steps": 3, "chains": 1, "noise_updates": 5}
for _name, _routine in {
    "guided-udiffse": UDiffSE(**_PUBLISHED), "guided-udiffse-vp": UDiffSE(sde=Vp(), **_PUBLISHED),
}.items():  # fmt: skip
    case(_name, 1e-3, routine=_routine, speech="score", length_s=0.5)(inverted)
case("em-langevin-video", 2e-3, routine=EM("langevin", step_size=0.4, **EM_SHORT))(infer_av)


@case("guided-gaussian-score", 1e-3)
def closed_form() -> Values:
    wave = noisy()
    power = GaussianSpeech(gain_sd_db=0.0)
    scene = Scene(GaussianScore.of(power, Stft().analyse(wave).frames), stationary)
    return answers(GuidedDiffusion(steps=6, sweeps=3, draws=4)(scene, wave, seed=0))


def known(frames: Any) -> ComplexNormal:
    return ComplexNormal(0.0, 0.3)


def unknown_level(frames: Any) -> ComplexNormal:
    level = pyro.sample("level", pyro.distributions.LogNormal(-1.0, 1.0))
    return ComplexNormal(0.0, level)


case("exact-known", 1e-4, routine=Exact(draws=4), speech="gaussian", noise=known)(inverted)
case("exact-level", 1e-4, routine=Exact(nodes=17, draws=4), speech="gaussian",
     noise=unknown_level, length_s=0.5)(inverted)  # fmt: skip


# --- what is built on them -----------------------------------------------------------------------


def found_by(enhanced: Any) -> Values:
    return {"speech": enhanced.speech.samples, "kind": enhanced.kind, **answers(enhanced.posterior)}


@case("enhance-default", 1e-3)
def enhance_default() -> Values:
    """What the default models do, how far the guide says it is off, and the same recalibrated."""
    enhanced = avse_ppl.enhance(noisy(), sample_rate_hz=RATE_HZ, seed=0, draws=20, predictor="none")
    again = enhanced.posterior.recalibrated(seed=0)
    return {**found_by(enhanced), "recalibrated": again.variance,
            "recalibrated.waveform": again.speech[-1, -1]}  # fmt: skip


@case("enhance-default-video", 1e-3)
def enhance_video() -> Values:
    audio = Audio(noisy(av=True), RATE_HZ)
    # The rest of the video is longer than the second that is enhanced.
    video = cut_lips(lips(), audio.duration_s)
    return found_by(avse_ppl.enhance(audio, video, seed=0, draws=5, predictor="none"))


def cut_lips(lips: Lips, end_s: float) -> Lips:
    """Video frames from 0 to a time."""
    kept = (lips.time_s >= -1e-6) & (lips.time_s < end_s)
    return Lips.from_crops(lips.roi[kept], rate_hz=25)


@case("enhance-chunks", 1e-3)
def enhance_chunks() -> Values:
    """Over 15 s, so that it is cut into chunks and cross-faded."""
    speech = np.tile(sounds()[0], 7)[: round(15.5 * RATE_HZ)]
    rain = np.resize(sounds()[2], speech.shape)
    enhanced = avse_ppl.enhance(
        Audio((speech + 0.5 * rain).astype("float32"), RATE_HZ), speech="gaussian",
        noise="stationary", inference=SVI(steps=4, draws=1, k_hat_draws=0), seed=0,
        predictor="none",
    )  # fmt: skip
    found = found_by(enhanced)
    return {name: found[name] for name in ("speech", "mean", "variance", "waveform", "kind")}


@case("enhance-batch", 1e-3)
def enhance_batch() -> Values:
    """Two recordings of different length, two channels in one of them."""
    wave = noisy()
    two = Audio(np.stack([wave, wave[::-1].copy()]), RATE_HZ)
    short = Audio(wave[:15000], RATE_HZ)
    routine = SVI(steps=4, draws=2, k_hat_draws=0)
    done = avse_ppl.enhance_batch(
        [two, short], speech="vae", inference=routine, seed=0, predictor="none"
    )
    return {f"{i}.{k}": v for i, one in enumerate(done) for k, v in found_by(one).items()}


@case("merge", 5e-3)
def merged() -> Values:
    scene, wave = Scene(GaussianSpeech(), stationary), noisy(0.3)
    short = NUTS(max_tree_depth=2, draws=4, warmup=3, chains=1, init_steps=5)
    both = avse_ppl.merge([short(scene, wave, seed=seed) for seed in (0, 1)], scene)
    figures = {k: np.asarray(v) for k, v in both.diagnostics[0].items()}
    numbers = {f"figures.{k}": v for k, v in figures.items() if v.dtype.kind in "fiub"}
    return {**answers(both), **numbers}


@case("compare", 1e-3)
def compared() -> Values:
    routine = SVI(steps=10, draws=100, waveforms=False)
    found = avse_ppl.compare(
        noisy(0.5), ["stationary", "nmf"], speech="gaussian", inference=routine, seed=0,
        sample_rate_hz=RATE_HZ,
    )  # fmt: skip
    return {
        "elpd": found.elpd, "k_hat": found.k_hat, "weights": np.asarray(found.weights),
        "p_loo": np.asarray(found.p_loo), "elbo": np.asarray(found.elbo, dtype=float),
        "sums": found.elpd.sum((1, 2)), "models": ", ".join(found.models), "kind": found.kind,
    }  # fmt: skip


@case("diagnose", 1e-2)
def diagnosed() -> Values:
    """Figures of a fit and of chains."""
    scene, wave = Scene(GaussianSpeech(), stationary), noisy(0.5)
    found: Values = {}
    chains = NUTS(max_tree_depth=2, draws=8, warmup=3, chains=2, init_steps=5)
    for name, routine in (("svi", SVI(steps=20, draws=40, k_hat_draws=100)), ("nuts", chains)):
        judged = avse_ppl.diagnose(routine(scene, wave, seed=0), scene)
        figures = {k: np.asarray(v) for k, v in judged.figures[0].items()}
        found |= {f"{name}.{k}": v for k, v in figures.items() if v.dtype.kind in "fiub"}
        found[f"{name}.warnings"] = str(len(judged.warnings[0]))
    return found


@case("front-end", 1e-4)
def front_end() -> Values:
    """Mixing, the transform both ways, and scores: what every other figure goes through."""
    clean, rain = highpass(sounds()[0], RATE_HZ), sounds()[2]
    mixture = mix(clean, rain, -3.0, seed=1)
    spectrogram = Stft().analyse(mixture.mixture)
    scores = avse_ppl.evaluate(mixture.speech, mixture.mixture, RATE_HZ)
    return {
        "speech": mixture.speech, "mixture": mixture.mixture, "scale": spectrogram.scale.numpy(),
        "values": spectrogram.values.numpy(), "again": Stft().synthesise(spectrogram)[0],
        "scores": np.array([scores.si_sdr_db, scores.stoi, scores.estoi]),
    }  # fmt: skip


@case("settings", 0.0)
def settings() -> Values:
    """What each name stands for, as text."""
    routines = {name: told(resolve_inference(name)) for name in INFERENCE_METHODS}
    noises = {name: told(resolve_noise(name)) for name in NOISE_MODELS if name != "learned"}
    classes = (SVI, EM, NUTS, HMC, NumPyroNUTS, GuidedDiffusion, UDiffSE, Exact, GaussianSpeech)
    own = {c.__name__: told(c()) for c in classes}
    sights = {n: told(resolve_reliability(n)) for n in ("soft", "switching", "beta", "ungated")}
    return {**routines, **{f"noise.{k}": v for k, v in noises.items()}, **own,
            **{f"reliability.{k}": v for k, v in sights.items()},
            "speech": ", ".join(speech_names())}  # fmt: skip


def told(thing: Any) -> str:
    """Class and settings of a dataclass, without where they are defined."""
    if not is_dataclass(thing):
        return getattr(thing, "__name__", type(thing).__name__)
    values = {k: type(v).__name__ if callable(v) else v for k, v in asdict(thing).items()}  # type: ignore[call-overload]
    inside = ", ".join(f"{k}={v}" for k, v in sorted(values.items()))
    return f"{type(thing).__name__}({inside})"
