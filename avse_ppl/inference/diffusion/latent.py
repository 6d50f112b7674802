"""Reverse diffusion of the latents of a Gaussian prior, with the exact likelihood."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from pyro import poutine
from torch import Tensor
from torch.distributions import Normal

from avse_ppl.distributions.complex_normal import ComplexNormal
from avse_ppl.inference.core.initialization import warm_start
from avse_ppl.inference.core.log_density import LogDensity, Values, site_distribution
from avse_ppl.inference.core.setup import RandomStreams
from avse_ppl.inference.diffusion.chains import GibbsSweep
from avse_ppl.inference.diffusion.noise import NoiseFit
from avse_ppl.models.handlers import recording_plate
from avse_ppl.models.predictors.predictor import ERROR, mode_of_error
from avse_ppl.models.protocols import HasLatentDecoder, LatentDenoisingNetwork, name_of, network_of
from avse_ppl.models.scene import Laws, Scene
from avse_ppl.models.speech.diffusion import renoising_coefficients
from avse_ppl.models.speech.latent_sequence import SequencePrior
from avse_ppl.signal.stft import Spectrogram

_PROBES = 8  # of the first estimate of the curvature
_KEPT = 0.37  # of the velocity, from move to move
_FARTHEST = 2.0  # deviations that the gradient may carry a latent in one step


class SpeechLatentDenoiser:
    """Denoiser of the speech latents of a scene, in closed form or by a network.

    Parameters
    ----------
    speech
        The prior.
    density
        Of the scene whose speech latents are diffused.

    Raises
    ------
    ValueError
        If a latent has neither a normal prior that is independent of the others nor a denoiser.
    """

    def __init__(self, speech: Any, density: LogDensity) -> None:
        network = network_of(speech)
        self.network: Any = network if isinstance(network, LatentDenoisingNetwork) else None
        self.visual: Any = density.mixture.frames.visual
        self.sites = [site for site in density.sites if not site.of_noise]
        of_speech = [name for name, of_noise in density.evidence.items() if not of_noise]
        if of_speech:
            raise ValueError(
                f"speech prior {name_of(speech)!r} observes {', '.join(map(repr, of_speech))} "
                "beside the mixture, which guided diffusion of its latents leaves out; take "
                "--inference svi or nuts"
            )
        self.closed_form = {
            site.name: find_normal_prior(
                speech, site_distribution(density, site.name, {}), site.name
            )
            for site in self.sites
            if not (self.network is not None and site.name == "speech.z")
        }

    def denoise(self, noisy: Values, sigma: float) -> dict[str, Normal]:
        r"""Normals :math:`N(E[z | y], Var[z | y])` of the clean latents, ``y = z + sigma eps``."""
        clean = {}
        for site in self.sites:
            y = noisy[site.name]
            if site.name in self.closed_form:
                mean, sd = self.closed_form[site.name]
                total = sd.square() + sigma**2
                moments = (mean * sigma**2 + y * sd.square()) / total, (sd * sigma).square() / total
            else:
                with torch.no_grad():
                    moments = self.network.denoise(y, y.new_full((len(y),), sigma), self.visual)
            sd = moments[1].expand(y.shape).sqrt()
            clean[site.name] = Normal(moments[0], sd, validate_args=False)
        return clean


def find_normal_prior(speech: Any, law: Any, name: str) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of a latent's prior ``law``, normal and independent of others.

    Raises
    ------
    ValueError
        If it is another one.
    """
    base = getattr(law, "base_dist", law)
    if isinstance(law, SequencePrior) and not getattr(speech.network, "autoregressive", True):
        like = next(speech.network.parameters()).new_zeros(law.batch_shape)
        with torch.no_grad():
            mean, logvar = speech.network.law(like, law.visual)
        return mean, torch.exp(0.5 * logvar)
    if hasattr(base, "loc") and hasattr(base, "scale") and "Normal" in type(base).__name__:
        return base.loc, base.scale
    raise ValueError(
        f"the prior of {name} has no score in closed form (its values follow each other, or are "
        "not normal), which guided diffusion needs; take --inference svi, or the speech prior "
        "score, latent-diffusion, tcvae or av-cvae"
    )


class LatentAutoencoder:
    """Network of a latent diffusion, as one between latents and power without a prior.

    ``audio_visual`` is a network of the same latents whose encoder uses the lips where there are
    some.
    """

    def __init__(self, network: Any, audio_visual: Any) -> None:
        self.network, self.audio_visual, self.latent = network, audio_visual, network.latent

    def encode(self, power: Tensor, **visual: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean, log-variance and, again, mean of z."""
        if visual and self.audio_visual is not None:
            return self.audio_visual.encode(power, **visual)
        mean, logvar = self.network.infer(power)
        return mean, logvar, mean

    def decode(self, z: Tensor, *_visual: Tensor) -> Tensor:
        """Log power."""
        return self.network.decode_latents(z)


class LatentState(NamedTuple):
    """Speech latents that gradients are taken at, and the law of speech there, ``(row, ...)``.

    ``prior`` is that without a prediction; ``speech`` that under which the mixture informs the
    latents, and ``predicted`` that of the prediction, if it informs them too.
    """

    points: Values
    prior: ComplexNormal
    speech: ComplexNormal
    predicted: ComplexNormal | None = None


def detach_law(law: ComplexNormal) -> ComplexNormal:
    """The same law without gradients."""
    mean = 0.0 if law.zero_mean else law.mean.detach()
    return ComplexNormal(mean, law.power.detach(), validate_args=False)


class LatentDiffusion:
    r"""Reverse diffusion of the latents, from :math:`y = z + \sigma_0 \epsilon`.

    At each level, :math:`z | y \approx N(m, w)` by the prior's denoiser, and z is drawn from

    .. math:: p(z | y, x, b) \propto N(z; m, w) \prod_{ft} N_c\left(x_{ft};\; 0,
        S_{ft}(z) + B_{ft}(b)\right)

    by a few Langevin moves, preconditioned by :math:`P = (1 / w + I)^{-1}` with I the Fisher
    information of the likelihood, estimated on the way by random signs. With
    :math:`\delta = \sqrt{h P}` and a velocity :math:`\nu`,

    .. math:: \nu \leftarrow \nu + \delta\, \nabla \log p(z), \quad z \leftarrow z + \tfrac12
        \delta \nu, \quad \nu \leftarrow c\, \nu + \sqrt{1 - c^2}\, \epsilon, \quad
        z \leftarrow z + \tfrac12 \delta \nu

    whose z have the law of a normal distribution whatever its width, as long as the move is stable
    (h times the largest eigenvalue of P times the curvature below 4); of other distributions there
    is an error of second order, as no move is accepted or refused. With a predictor, the prediction
    is a factor more, the mixture's is given it, and the error is as its law expects it. Then the
    noise is fitted,
    and z is carried to the next level as bins are, see `avse_ppl.inference.diffusion.spectrogram`.

    Parameters
    ----------
    scene
        With a speech prior whose latents have closed-form scores, or a latent diffusion; without a
        model of reliability.
    mixture
        Of all chains, one row each, with visual features.
    streams
        Random numbers of each row.
    tempering
        Power of the likelihood.
    step_size
        h of the Langevin moves.
    base_prior
        For a latent diffusion: a prior of the same latents with an audio-visual encoder.

    References
    ----------
    Leimkuhler and Matthews, "Rational construction of stochastic numerical methods for molecular
    sampling", Applied Mathematics Research eXpress 2013.
    """

    def __init__(
        self,
        scene: Scene,
        mixture: Spectrogram,
        streams: RandomStreams,
        tempering: float,
        step_size: float,
        base_prior: Any = None,
    ) -> None:
        speech: Any = scene.speech
        if isinstance(network_of(speech), HasLatentDecoder):
            # The site is the latent itself, and not its innovation.
            other = None if base_prior is None else base_prior.network
            if other is not None and other.latent != speech.network.latent:
                raise ValueError(
                    f"the base prior has {other.latent} latents, the speech prior "
                    f"{speech.network.latent}; take one trained on the same latents"
                )
            speech = replace(speech, network=LatentAutoencoder(speech.network, other))
        self.density = LogDensity(Scene(speech, scene.noise), mixture)
        self.predictor, self.belief = scene.predictor, None
        if self.predictor is not None:
            self.belief = self.predictor.weigh(mixture.frames)
        self.streams, self.step_size, self.tempering = streams, step_size, tempering
        self.denoiser = SpeechLatentDenoiser(scene.speech, self.density)
        if not self.denoiser.sites:
            raise ValueError("the speech prior has no latents; take Exact() ('exact')")

        # Initial values, by the encoder.
        state, _ = warm_start(self.density, streams)
        self.clean = {site.name: state[site.name] for site in self.denoiser.sites}
        self.fisher: Values = {}
        self.velocity: Values = {}
        self.probes = 0
        names = self.density.names(of_noise=True)
        noise = self.density.constrain({name: state[name] for name in names})[0]
        with torch.no_grad():
            start = self.current_state()
            law = detach_law(start.speech)
        if start.predicted is not None:  # noise starts at what is left beside the prediction
            noise = None
        self.noise = NoiseFit(scene.noise, mixture, streams, law, tempering, noise)

    def run(
        self,
        sigmas: Sequence[float],
        langevin_steps: int,
        noise_updates: int,
        noise_retention: float,
    ) -> Iterator[GibbsSweep]:
        """Yield, for each noise level, all latents and the posterior of speech given them."""
        noisy = {name: u + sigmas[0] * self.draw_normal(u) for name, u in self.clean.items()}
        state = self.current_state()
        past = None
        for step, sigma in enumerate(sigmas):
            priors = self.denoiser.denoise(noisy, sigma)
            values, law = self.noise.draw()
            self.update_fisher(state, law)
            for _ in range(langevin_steps):
                self.take_langevin_step(state, law, priors, past)
                past, state = priors, self.current_state()
            update = self.noise.sample if step and sigma == sigmas[-1] else self.noise.fit
            update(detach_law(state.speech), noise_updates)
            noise_values, law = self.noise.draw()
            laws = self.weigh(detach_law(state.prior), law)
            posterior = laws.condition(self.density.mixture.values)
            speech_values = self.density.constrain(self.clean)[0]
            latents = {**values, **speech_values, **noise_values}
            if state.predicted is not None:
                latents[ERROR] = mode_of_error(self.density.mixture)
            yield GibbsSweep(posterior, latents, laws)
            if step + 1 == len(sigmas):
                return
            kept, fresh = renoising_coefficients(sigma, sigmas[step + 1], noise_retention)
            noisy = {
                name: clean + kept * (noisy[name] - clean) + fresh * self.draw_normal(clean)
                for name, clean in self.clean.items()
            }

    def current_state(self) -> LatentState:
        """Current speech latents, and the power that they stand for."""
        points = {name: u.detach().requires_grad_() for name, u in self.clean.items()}
        values = {site.name: site.transform(points[site.name]) for site in self.denoiser.sites}
        speech = self.compute_speech(values)
        if self.predictor is None or self.belief is None or not self.predictor.informs_latents:
            return LatentState(points, speech, speech)
        informed = self.predictor.pool(speech, self.belief).plug_in
        predicted = self.predictor.predict_law(speech, self.belief)
        return LatentState(points, speech, informed, predicted)

    def weigh(self, speech: ComplexNormal, noise: ComplexNormal) -> Laws:
        """Laws of speech and noise, with the prediction if there is one."""
        if self.predictor is None or self.belief is None:
            return Laws(speech, noise)
        return Laws(speech, noise, self.predictor.pool(speech, self.belief))

    def take_langevin_step(
        self, state: LatentState, law: ComplexNormal, priors: Mapping[str, Normal],
        past: Mapping[str, Normal] | None = None,
    ) -> None:  # fmt: skip
        """One Langevin move of all speech latents, the noise being distributed by ``law``.

        ``past`` is what the denoiser said at the move before. A kick ends that move and begins
        this one, so that half of it is of the past: without, each new y would widen the latents.
        """
        mixture = self.density.mixture
        mean = law.mean if state.speech.zero_mean else state.speech.mean + law.mean
        mixed = ComplexNormal(mean, state.speech.power + law.power, validate_args=False)
        bins = self.mask_padding(mixed.log_prob(mixture.values))
        if state.predicted is not None and self.belief is not None:
            terms = state.predicted.log_prob(self.belief.predicted)
            bins = bins + torch.where(self.belief.counts > 0.5, terms, terms.new_zeros(()))
        total = self.tempering * bins.sum()
        gradients = torch.autograd.grad(total, list(state.points.values()))
        for (name, u), likelihood in zip(self.clean.items(), gradients, strict=True):
            prior = priors[name]
            pull = (prior.mean - u) / prior.variance
            if past is not None:
                pull = 0.5 * (pull + (past[name].mean - u) / past[name].variance)
            gradient = likelihood + pull
            if not bool(torch.isfinite(gradient).all()):
                raise ValueError(
                    f"the gradient of {name} is not finite at a noise level of guided diffusion; "
                    "expected numbers. Take a smaller step, or look for a law that overflows"
                )
            size = (self.step_size / (prior.variance.reciprocal() + self.fisher[name])).sqrt()
            farthest = _FARTHEST * prior.stddev
            kick = torch.minimum(torch.maximum(size.square() * gradient, -farthest), farthest)
            if name not in self.velocity:
                self.velocity[name] = self.draw_normal(u)
            velocity = self.velocity[name] + kick / size
            renewed = _KEPT * velocity + (1.0 - _KEPT**2) ** 0.5 * self.draw_normal(u)
            self.clean[name] = u + 0.5 * size * (velocity + renewed)
            self.velocity[name] = renewed

    def update_fisher(self, state: LatentState, law: ComplexNormal) -> None:
        r"""Update the running mean of :math:`(J^T \epsilon)^2`, :math:`\epsilon` random signs.

        J is the derivative of the log power of the mixture, whose Fisher information is 1 a bin:
        this is the diagonal of that of the latents. With a predictor, means and the prediction add
        theirs, under signs of their own.
        """
        power = state.speech.power + law.power
        log_power = power.log()
        more = []
        if state.predicted is not None and self.belief is not None:
            scaled = state.speech.mean * (2.0 / power.detach()).sqrt()
            more = [self.mask_padding(scaled.real), self.mask_padding(scaled.imag),
                    (self.belief.counts > 0.5) * state.predicted.power.log()]  # fmt: skip
        is_first = not self.fisher
        for _ in range(_PROBES if is_first else 1):
            signs = self.draw_normal(log_power).sign() * self.tempering**0.5
            total = (self.mask_padding(signs) * log_power).sum()
            for bins in more:
                total = total + (self.draw_normal(bins).sign() * bins).sum() * self.tempering**0.5
            # The graph is walked once more, by the Langevin step from this state.
            slopes = torch.autograd.grad(total, list(state.points.values()), retain_graph=True)
            self.probes += 1
            weight = 2.0 / (self.probes + 1)  # later ones count more, each ever less
            for name, slope in zip(state.points, slopes, strict=True):
                past = self.fisher.get(name, slope.square())
                self.fisher[name] = past.lerp(slope.square(), weight)

    def compute_speech(self, values: Values) -> ComplexNormal:
        """Distribution of speech given its latents."""
        mixture = self.density.mixture
        with poutine.block(), poutine.condition(data=values), recording_plate(mixture.recordings):
            law = self.density.scene.speech(mixture.frames, mixture.frames.visual)
        return law.expand(mixture.values.shape)

    def mask_padding(self, bins: Tensor) -> Tensor:
        """Values of bins, 0 in the padding."""
        mask = self.density.mixture.mask
        return bins if mask is None else torch.where(mask, bins, bins.new_zeros(()))

    def draw_normal(self, like: Tensor) -> Tensor:
        """Standard-normal numbers of the same shape."""
        return self.streams.normal(like.shape, like.dtype)
