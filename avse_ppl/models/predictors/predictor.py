"""A predictor as a part of the scene: its answer is evidence about speech, with an error law."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from pyroapi import distributions as dist
from pyroapi import handlers, ops, pyro
from torch import Tensor, nn

from avse_ppl.distributions.complex_normal import ComplexNormal
from avse_ppl.models.handlers import PREDICTED
from avse_ppl.models.predictors.checks import guard_enhancer
from avse_ppl.models.predictors.error_law import ErrorLaw
from avse_ppl.signal.stft import Frames, Spectrogram

ERROR = "predictor.error"  # the site
BANDS = 6  # of the error that the posterior learns on the recording
_DB = 0.1 * np.log(10.0)
USELESS = 25.0  # log power of the error of a prediction that is not used
_SILENT, _UNCHANGED = 1e-4, 1e-3  # shares of the power of a mixture
_MOST = 0.9  # share of the bins
_AGREEMENT, _CORRELATION = (0.6, 8.0), 0.08

SceneT = TypeVar("SceneT")
Enhancer = Callable[[np.ndarray, int], np.ndarray]


class Belief(NamedTuple):
    """How far a prediction is believed, ``(recording, freq, time)`` each.

    Its values, the power of its error, 1 where it counts at all, and in [0, 1] by how much.
    """

    predicted: Any
    error: Any
    counts: Any
    believed: Any


class Evidence:
    """What a prediction says of speech: laws given it, and how far the mixture counts beside.

    Each is computed when it is asked for: the density of the latents needs `plug_in` alone.

    Parameters
    ----------
    predictor, speech, belief
        Whose, the law of speech without a prediction, and how far that is believed.
    """

    def __init__(self, predictor: Predictor, speech: ComplexNormal, belief: Belief) -> None:
        self.predictor, self.prior, self.belief = predictor, speech, belief
        self.exp = ops.exp  # that of the backend which runs now

    @cached_property
    def speech(self) -> ComplexNormal:
        """Law of speech given the prediction and its prior."""
        weight = self.weigh(self.predictor.prior_weight)
        wide = ComplexNormal(
            0.0 if self.prior.zero_mean else self.prior.mean, self.prior.power / weight
        )
        return condition_on_prediction(wide, self.belief.error, self.belief.predicted)

    @cached_property
    def plug_in(self) -> ComplexNormal:
        """Law of speech under which the mixture informs the latents."""
        if self.predictor.latent_share is None:
            return self.prior
        error = self.predictor.latent_share * self.belief.error
        return condition_on_prediction(self.prior, error, self.belief.predicted)

    @cached_property
    def mixture_weight(self) -> Any:
        """How far the mixture counts for speech beside the prediction."""
        return self.weigh(self.predictor.mixture_weight)

    @property
    def least_noise(self) -> Any:
        """Least power that is taken for noise; none where the prediction is not believed."""
        believed = self.belief.believed  # 1 / sqrt(r), where the error is E r
        return self.predictor.noise_share * self.belief.error * believed**3

    def weigh(self, weight: float) -> Any:
        """Power of a weight: 1 where the prediction is not believed."""
        return self.exp(math.log(weight) * self.belief.believed)


@dataclass(frozen=True)
class Predictor:
    r"""What an enhancer makes of the mixture, as a noisy observation of speech.

    .. math:: \hat s_{ft} \mid s \sim N_c(s_{ft}, E_{ft} r_f), \quad
        r_f = 10^{\sigma (W a)_f / 10}, \quad a_k \sim \mathrm{Exp}(1)

    with E the power of the error that `law` expects of the mixture and the prediction, and
    :math:`\sigma a_k` by how much more it is off in band k of this recording, decibels, which the
    posterior learns: a prediction that neither the speech prior nor the mixture supports is found
    to be wrong. It is never better than its law.

    What it approximates: a prediction is a function of the mixture, so that the two are no
    independent witnesses of speech. Speech is therefore inferred by a log-linear pool,

    .. math:: p(s_{ft} \mid \cdot) \propto N_c(s; 0, S)^{\alpha(r)}\, N_c(x; s, B)^{\beta(r)}\,
        N_c(\hat s; s, E r), \quad \alpha(r) = \alpha^{1 / \sqrt r}, \;
        \beta(r) = \beta^{1 / \sqrt r}

    in which the prior and the mixture count in part as far as the prediction is believed, and
    wholly where it is not: with a predictor that is given up, this is the posterior without.
    ``posterior.kind`` says "pooled with a predictor".

    The latents of speech and noise are inferred as if the prediction were better than its law, with
    :math:`\kappa E r` in place of :math:`E r`: noise is what it leaves of the mixture, nearly. Or
    they are inferred from the mixture alone (a cut), and only speech by the pool, with r = 1: the
    prior then knows what the prediction does not. In either case the noise may be taken to have
    some of the power of the error at least, :math:`B / \beta(r) + \gamma E / \sqrt r`, since a
    prediction errs where there is noise, also where the noise model finds none, as in babble.

    Sites: ``predictor.error``, ``(band, 1)``; observed, ``speech.predicted``. None with a cut.

    Parameters
    ----------
    enhance
        ``(wave, sample_rate_hz) -> wave``.
    law
        Power of the error.
    prior_weight, mixture_weight
        :math:`\alpha` and :math:`\beta`, in (0, 1].
    latent_share
        :math:`\kappa`, in (0, 1]; None: the latents are inferred without the prediction.
    excess_db
        :math:`\sigma`, prior mean of what the error exceeds its law by in a band, dB.
    noise_share
        :math:`\gamma`, 0 or more.
    name
        For messages and reports.

    References
    ----------
    Genest and Zidek, "Combining probability distributions: a critique and an annotated
    bibliography", Statistical Science 1986. Fearnhead and Prangle, "Constructing summary statistics
    for approximate Bayesian computation", JRSS B 2012. Kennedy and O'Hagan, "Bayesian calibration
    of computer models", JRSS B 2001. Plummer, "Cuts in Bayesian graphical models", Statistics and
    Computing 2015.
    """

    enhance: Enhancer
    law: ErrorLaw = field(default_factory=ErrorLaw)
    prior_weight: float = 0.0001
    mixture_weight: float = 0.05
    latent_share: float | None = 0.05
    excess_db: float = 5.0
    noise_share: float = 0.0
    name: str = "predictor"

    @property
    def uses_lips(self) -> bool:
        """Whether visual features change the prediction."""
        return bool(getattr(self.enhance, "uses_lips", False))

    @property
    def informs_latents(self) -> bool:
        """Whether the latents are inferred with the prediction, too."""
        return self.latent_share is not None

    def __call__(self, frames: Frames, speech: ComplexNormal) -> Evidence | None:
        """Observe the prediction; laws of speech given it, None without a prediction."""
        if not self.informs_latents:
            return None if frames.predicted is None else self.pool(speech, self.weigh(frames))
        with pyro.plate("error_band", BANDS, dim=-2):
            off = pyro.sample(ERROR, dist.Exponential(frames.number(1.0)))
        if frames.predicted is None:
            return None
        belief = self.weigh(frames, off)
        with (
            pyro.plate("freq", frames.freq, dim=-2),
            pyro.plate("time", frames.time, dim=-1),
            handlers.mask(mask=belief.counts > 0.5),
        ):
            law = self.predict_law(speech, belief)
            pyro.sample(PREDICTED, law, obs=belief.predicted)
        return self.pool(speech, belief)

    def weigh(self, frames: Frames, off: Any = None) -> Belief:
        """How far the prediction in ``frames.predicted`` is believed.

        ``off``, ``(recording, band, 1)``, is `predictor.error`; by default 0, the mode of its
        prior: the error is as its law expects it.
        """
        predicted = frames.predicted[:, 0] + 1j * frames.predicted[:, 1]
        error, counts = ops.exp(frames.predicted[:, 2]), frames.predicted[:, 3]
        if off is None:
            return Belief(predicted, error, counts, counts)
        excess = _DB * self.excess_db * (band_weights(frames) @ off)  # (freq, 1)
        return Belief(predicted, error * ops.exp(excess), counts, counts * ops.exp(-0.5 * excess))

    def predict_law(self, speech: ComplexNormal, belief: Belief) -> ComplexNormal:
        """Law of the prediction, under which it informs the latents of speech, unless cut."""
        mean = 0.0 if speech.zero_mean else speech.mean
        return ComplexNormal(mean, speech.power + (self.latent_share or 0.0) * belief.error)

    def pool(self, speech: ComplexNormal, belief: Belief) -> Evidence:
        """Laws of speech given the prediction and its prior."""
        return Evidence(self, speech, belief)

    def predict(self, mixture: Spectrogram) -> Tensor:
        """Prediction of each recording, ``(recording, 4, freq, time)``, see `Frames`.

        An enhancer that uses lips is given the visual features of the mixture, if there are any.

        Raises
        ------
        PredictorError
            If the enhancer raises, or returns what cannot be a prediction.
        """
        enhance = guard_enhancer(self.enhance, self.name)
        waves = mixture.stft.synthesise(mixture)
        rows = []
        for r, wave in enumerate(waves):
            rate_hz = mixture.stft.sample_rate_hz
            one = mixture.select(r)
            visual = one.frames.visual if self.uses_lips else None
            given: Any = {} if visual is None else {"visual": visual[0]}
            found = enhance(wave, rate_hz, **given)
            values = mixture.stft.forward(torch.from_numpy(found)).to(one.values)
            values = values[None] / one.scale[:, None, None]
            with torch.no_grad():
                log_error = self.law(one, values).to(one.scale.dtype)
            counts = torch.ones_like(log_error)
            if describe_failure(one, values) is not None:
                log_error, counts = torch.full_like(log_error, USELESS), 0.0 * counts
            columns = (values.real, values.imag, log_error, counts)
            row = torch.stack([column[0] for column in columns])
            rows.append(torch.nn.functional.pad(row, (0, mixture.frames.time - row.shape[-1])))
        return torch.stack(rows)

    def to(self, device: torch.device, dtype: torch.dtype) -> Predictor:
        """Return the same predictor with its law on a device and in a dtype."""
        return replace(self, law=copy.deepcopy(self.law).to(device, dtype))


def describe_failure(mixture: Spectrogram, predicted: Tensor) -> str | None:
    r"""Why a prediction cannot be one of the speech in this recording; None if it can.

    Speech adds to noise that is independent of it, so that :math:`\sum x \hat s^* / \sum |\hat
    s|^2` is near 1 for a good prediction, and near 0 for another recording, other noise, or speech
    that comes late. A prediction without power says that there is no speech, one without anything
    removed that there is no noise: neither tells speech from noise.

    Parameters
    ----------
    mixture
        Of one recording.
    predicted
        ``(1, freq, time)``, in units of its scale.
    """
    removed = mixture.values - predicted
    power, gone = mixture.power, removed.real.square() + removed.imag.square()
    kept, heard = (
        float((predicted.real.square() + predicted.imag.square()).sum()),
        float(power.sum()),
    )
    if kept < _SILENT * heard:
        return "it is silent beside the mixture"
    if float((gone <= _UNCHANGED * power).float().mean()) > _MOST:
        return "it is the mixture itself"
    product = float((mixture.values * predicted.conj()).real.sum())
    agreement, correlation = product / kept, product / math.sqrt(kept * heard)
    if not _AGREEMENT[0] < agreement < _AGREEMENT[1] or correlation < _CORRELATION:
        return (
            f"it does not agree with the mixture (projection {agreement:.2f}, 1 expected; "
            f"correlation {correlation:.2f})"
        )
    return None


def condition_on_prediction(speech: ComplexNormal, error: Any, predicted: Any) -> ComplexNormal:
    """Law of speech given a prediction with an error of known power."""
    gain = speech.power / (speech.power + error)
    if speech.zero_mean:
        return ComplexNormal(gain * predicted, gain * error)
    return ComplexNormal(speech.mean + gain * (predicted - speech.mean), gain * error)


def band_weights(frames: Frames) -> Any:
    """Weights of bands at each frequency, ``(freq, band)``: triangles on the mel scale."""
    mel = ops.log(1.0 + frames.freq_hz / 700.0)
    top = float(np.log(1.0 + 0.5 * frames.sample_rate_hz / 700.0))
    place = mel * ((BANDS - 1) / top)
    centre = ops.arange(BANDS, device=frames.device, dtype=frames.dtype)
    height = 1.0 - ops.abs(place - centre)
    return 0.5 * (height + ops.abs(height))  # not below 0, on JAX as well


def mode_of_error(mixture: Spectrogram) -> Tensor:
    """Prior mode of ``predictor.error``, ``(recording, band, 1)``: the error is as its law."""
    return mixture.scale.new_zeros(mixture.recordings, BANDS, 1)


def condition_on_predictor(scene: Any, mixture: Spectrogram) -> Spectrogram:
    """Mixture with what the predictor of a scene makes of it, if it has one.

    A predictor that uses lips is shown the features of the scene's speech prior, if the visual
    encoder of that is its own.
    """
    if scene.predictor is None or mixture.frames.predicted is not None:
        return mixture
    seen = mixture if shares_visual_encoder(scene) else mixture.with_visual(None)
    return mixture.with_predicted(scene.predictor.predict(seen))


def drop_unused_predictor(scene: SceneT, pooled: bool) -> SceneT:
    """Scene that a posterior is of: without its predictor if all its answers were left out.

    Parameters
    ----------
    scene
        What the inference was given.
    pooled
        Whether a predictor took part in the posterior, `Approximation.pooled`.
    """
    one: Any = scene
    return scene if pooled or one.predictor is None else replace(one, predictor=None)


def shares_visual_encoder(scene: Any) -> bool:
    """Whether the predictor of a scene takes the visual features that its speech prior takes."""
    if scene.predictor is None or not scene.predictor.uses_lips:
        return False
    mine, theirs = (
        getattr(owner, "visual_encoder", None) for owner in (scene.predictor.enhance, scene.speech)
    )
    return mine is not None and theirs is not None and have_same_weights(mine, theirs)


def have_same_weights(one: nn.Module, other: nn.Module) -> bool:
    """Whether two networks hold the same weights, wherever they are."""
    own, others = one.state_dict(), other.state_dict()
    return own.keys() == others.keys() and all(
        own[key].shape == others[key].shape and bool((own[key].cpu() == others[key].cpu()).all())
        for key in own
    )
