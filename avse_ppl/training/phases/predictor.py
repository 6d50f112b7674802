"""Training of a predictor: speech and the power of its error from simulated mixtures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from avse_ppl.models.networks.tcn import Prediction
from avse_ppl.models.weights.io import NETWORKS, save_weights
from avse_ppl.signal.stft import Stft
from avse_ppl.training.datasets.predictor_crops import PredictorCrops
from avse_ppl.training.loudness import LoudnessDisturbance
from avse_ppl.training.objective import Objective
from avse_ppl.training.phases.vae import GOING_ON, compute_power, load_crops, load_initial
from avse_ppl.training.recipes import PredictorRecipe
from avse_ppl.training.rooms import load_room_responses
from avse_ppl.training.run import SPLITS, Run, TrainingData

PREDICTOR_STFT = Stft(512, 256)  # half the window of the priors: a frame of 32 ms
_COMPRESSION = 0.3
_LEVEL_SD_DB = 4.0


def train_predictor(
    recipe: PredictorRecipe,
    data: TrainingData,
    output: str | Path,
    *,
    name: str,
    card: Mapping[str, Any],
    initial: str | Path | None = None,
    stft: Stft | None = None,
    seed: int = 0,
    **settings: Any,
) -> Path:
    """Train a predictor and write its weights, config and model card.

    Parameters
    ----------
    recipe, data
        What to train, and on what: speech and noise.
    initial
        Weights to go on from, at a third of the learning rate: the name of shipped ones or a
        folder.
    output, name, card, stft, seed, **settings
        As for `avse_ppl.training.train_vae`; the STFT is by default one of 512 samples, hop 256.

    Returns
    -------
    Path
        The folder, readable by ``load_predictor``.

    Raises
    ------
    ValueError
        If there is no speech or no noise, a cache has no clip in one of the splits, or is at
        another rate than ``stft``; if ``initial`` is of other sizes or of another front end; or if
        the training diverges.
    ImportError
        If pyroomacoustics is not installed.
    """
    stft, run = stft or PREDICTOR_STFT, Run(Path(output), seed, **settings)
    speech = data.require_speech(stft.sample_rate_hz)
    noise = data.require_noise(stft.sample_rate_hz)
    rooms = load_room_responses(run.output, stft.sample_rate_hz, seed)
    crop = round(recipe.crop_s * stft.sample_rate_hz)
    crops = [PredictorCrops(speech, s, crop, stft, noise, recipe.snr_db, rooms) for s in SPLITS]
    run.seed_weights()
    network = NETWORKS[recipe.network](freq=stft.freq, **recipe.settings)
    if initial is not None:
        load_initial(network, initial, stft)
        recipe = replace(recipe, learning_rate=recipe.learning_rate * GOING_ON)
    run.fit("predictor", PredictorTraining(recipe, stft, network), load_crops(run, recipe, crops))
    return save_weights(
        run.output, network, recipe.network, dict(recipe.settings), stft, name=name,
        card=run.make_card(card, recipe, unit="see PredictorTraining"), use="predictor",
    )  # fmt: skip


class PredictorTraining(Objective):
    r"""Waveform, compressed spectrum, loudness, and likelihood of the error, of predicted speech.

    .. math:: L = -w\,\mathrm{SDR}(s, \hat s)
        + \left\| |S|^{.3} - |\hat S|^{.3} \right\|^2
        + \tfrac12 \left\| S |S|^{-.7} - \hat S |\hat S|^{-.7} \right\|^2
        + v \, d(S, \hat S) + u \left[\log e + |S - \hat S|^2 / e\right]

    with :math:`d` the `LoudnessDisturbance`: what is audible counts, as PESQ weighs it. The last
    term fits the predicted power of the error, and leaves the prediction as it is. Mixtures without
    speech take no part in the first and the fourth. A share of the steps is causal.

    Parameters
    ----------
    recipe, stft, network
        As for `VaeTraining`.

    References
    ----------
    Braun and Tashev, "A consolidated view of loss functions for supervised deep learning-based
    speech enhancement", TSP 2021. Fang, Becker, Wermter and Gerkmann, "Integrating uncertainty into
    neural network-based speech enhancement", TASLP 2023.
    """

    def __init__(self, recipe: PredictorRecipe, stft: Stft, network: Any) -> None:
        super().__init__(network, recipe.epochs, recipe.learning_rate)
        self.recipe, self.stft = recipe, stft
        self.disturbance = LoudnessDisturbance(stft)

    def losses(self, batch: Tensor, **given: Any) -> dict[str, Tensor]:
        """Loss of pairs of speech and noise, ``(crop, 2, sample)``; the network is given more."""
        causal = self.training and bool(torch.rand(()) < self.recipe.causal_share)
        speech, noise = batch.unbind(1)
        mixture = self.stft.forward(speech + noise)
        gain = compute_power(mixture).mean((-2, -1), keepdim=True).sqrt()  # as for inference
        if self.training:  # a stream has to guess the level, and a narrow band may hold most of it
            gain = gain * 10 ** (torch.randn_like(gain) * _LEVEL_SD_DB / 20)
        found = self.network(mixture / gain, causal, **given)
        terms = self.measure(found, speech, gain)
        means = {key: terms[key].mean() for key in ("magnitude", "both", "nll")}
        there = (speech.square().mean(-1) > 0).sum().clamp_min(1)
        for key in ("sdr_db", "loudness"):
            means[key] = terms[key].sum() / there
        return {"loss": self.weigh(means), **means}

    def measure(self, found: Prediction, speech: Tensor, gain: Tensor) -> dict[str, Tensor]:
        """Terms of the loss for each mixture, ``(crop,)``, and SI-SDR; 0 dB without speech."""
        truth = self.stft.forward(speech) / gain
        wave = self.stft.inverse(found.speech * gain, speech.shape[-1])
        there = (speech.square().mean(-1) > 0).float()
        scale = (speech * wave).sum(-1) / speech.square().sum(-1).clamp_min(1e-8)
        small, small_truth = compress(found.speech), compress(truth)
        difference = small - small_truth
        off = compute_power(truth - found.speech.detach())
        return {
            "sdr_db": there * measure_sdr(speech, wave),
            "si_sdr_db": there * measure_sdr(scale[:, None] * speech, wave),
            "magnitude": (small.abs() - small_truth.abs()).square().mean((1, 2)),
            "both": (difference.real.square() + difference.imag.square()).mean((1, 2)),
            "loudness": there * self.disturbance(found.speech, truth),
            "nll": (found.log_error + off * torch.exp(-found.log_error)).mean((1, 2)),
        }

    def weigh(self, terms: Mapping[str, Tensor]) -> Tensor:
        """Loss from its terms, of each mixture or of all."""
        sdr, magnitude, both, nll, loudness = self.recipe.loss_weights
        loss = magnitude * terms["magnitude"] + both * terms["both"] + nll * terms["nll"]
        return loss + loudness * terms["loudness"] - sdr * terms["sdr_db"]

    def configure_optimizers(self) -> Any:
        """Adam; its rate rises over the first steps, then falls along a cosine."""
        optimiser = torch.optim.Adam(self.list_trained(), lr=self.learning_rate)
        return self.anneal_each_step(optimiser)


def measure_sdr(speech: Tensor, wave: Tensor, floor: float = 1e-3) -> Tensor:
    """Signal-to-distortion ratio of waves ``(crop, sample)``, dB, up to that of the floor.

    Examples
    --------
    >>> measure_sdr(torch.ones(1, 100), 1.1 * torch.ones(1, 100), 0.0).round()
    tensor([20.])
    """
    energy, error = speech.square().sum(-1), (speech - wave).square().sum(-1)
    return 10 * torch.log10((energy + 1e-8) / (error + floor * energy + 1e-8))


def compress(values: Tensor) -> Tensor:
    """Compress the magnitudes of a complex STFT."""
    return values * compute_power(values).pow(0.5 * (_COMPRESSION - 1.0))
