"""Trains audio-visual and dynamical priors on the latents of an audio-only one."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl

from avse_ppl.data.cache import SpeechCache
from avse_ppl.data.lips_cache import LipsCache
from avse_ppl.models.networks import LipEncoder, SequentialVaeNetwork
from avse_ppl.models.weights.io import (
    is_shipped,
    load_lip_encoder,
    load_shared,
    save_lip_encoder,
    save_weights,
)
from avse_ppl.signal.stft import Stft
from avse_ppl.training.data import SpeechCrops
from avse_ppl.training.fit import Run, card_metrics, check_rates
from avse_ppl.training.recipes import AudioVisualRecipe
from avse_ppl.training.seeing_data import AVMixtureCrops, AVSpeechCrops, MouthCrops, VisualFeatures
from avse_ppl.training.seeing_phases import (
    AVEncoderTraining,
    LipsTraining,
    PriorTraining,
    TeacherTraining,
    clean_teacher,
)

_SPLITS = ("train", "dev")


@dataclass(frozen=True)
class TrainingData:
    """What a prior is trained on.

    Parameters
    ----------
    speech
        Cached speech.
    noise
        Cached noise for the encoder's phase; diffusion priors have none.
    lips
        Prepared lips of those clips that have a video; needed if the prior sees.
    """

    speech: SpeechCache
    noise: SpeechCache | None = None
    lips: Sequence[LipsCache] = ()


def train_audio_visual(
    recipe: AudioVisualRecipe,
    materials: TrainingData,
    output: str | Path,
    *,
    name: str,
    data: Mapping[str, Any],
    teacher: str | Path | None = None,
    lips: str | Path | None = None,
    encoder: str | Path | None = None,
    stft: Stft | None = None,
    seed: int = 0,
    **settings: Any,
) -> Path:
    """Fit a prior in up to four phases and write its weights, config and model card.

    1. "teacher": the encoder of the audio-only prior that it builds on, on clean speech;
    2. "lips": the visual encoder, if the prior sees;
    3. "prior": the law of the latents, and a decoder that is new;
    4. "encoder": latents of the speech in mixtures.

    Each may be taken from another training instead: `teacher`, `lips` and `encoder` are folders
    that one left.

    Parameters
    ----------
    recipe, materials
        What to train, and on what.
    output, name, data, stft, seed
        As for `train`.
    teacher, lips, encoder
        Folders of weights in place of phases 1, 2 and 4.
    **settings
        ``device``, ``precision``, ``workers``, ``resume`` and ``progress``, as for `train`.

    Returns
    -------
    Path
        The folder, readable by ``load_speech``.

    Raises
    ------
    ValueError
        If a cache has no clip in one of the splits, or is at another rate than ``stft``; if there
        are no lips for a prior that sees, or no noise for an encoder; or if the training diverges.
    """
    stft, output = stft or Stft(), Path(output)
    check_rates(stft, materials.speech, materials.noise)
    if recipe.sees and not materials.lips:
        raise ValueError(
            "a prior that sees learns from lips: prepare a corpus with video (avse-ppl prepare "
            "CORPUS DIR -o CACHE) and give it with --lips CACHE"
        )
    if encoder is None and materials.noise is None:
        raise ValueError("the encoder learns to hear through noise: give Materials a noise cache")
    training = _Training(recipe, materials, output, stft, seed, settings)
    guide = training.teacher(teacher)
    seer = training.lips(lips, guide) if recipe.sees else None
    pl.seed_everything(seed, verbose=False)  # of the weights that are new
    network = SequentialVaeNetwork(freq=stft.freq, **recipe.settings)
    load_shared(network, guide)
    pictures = training.pictures(seer)
    training.prior(network, guide, pictures)
    if encoder is None:
        load_shared(network, recipe.start, only="encoder")  # which has heard noise, too
        training.encoder(network, guide, pictures)
    else:
        load_shared(network, encoder, only="encoder")
    folder = save_weights(
        output, network, recipe.network, dict(recipe.settings), stft, name=name,
        card={**data, "seed": seed, **card_metrics(training.metrics), "recipe": recipe},
        lips=None if seer is None else str(lips) if is_shipped(lips) else "lips",
        visual_weight=recipe.visual_weight,
    )  # fmt: skip
    if seer is not None and lips is None:
        metrics = card_metrics({"lips": training.metrics["lips"]})
        save_lip_encoder(output / "lips", seer, name="lips", card={**data, "seed": seed, **metrics})
    elif lips is not None and not is_shipped(lips):
        shutil.copytree(lips, output / "lips", dirs_exist_ok=True)
    return folder


def teach(
    run: Run, speech: SpeechCache, given: str | Path | None
) -> tuple[Any, dict[str, dict[str, float]]]:
    """Phase "teacher", or what it left elsewhere: latents that others learn from.

    Parameters
    ----------
    run
        The training that it is a phase of; its recipe has ``start`` and ``teacher_epochs``.
    speech
        Cached speech.
    given
        Folder of a teacher, or None to train one into ``teacher/`` of the output.

    Returns
    -------
    tuple
        The network, frozen, and what was measured, by phase.
    """
    recipe: Any = run.recipe
    settings = {"latent": recipe.settings["latent"]}
    pl.seed_everything(run.seed, verbose=False)  # of layers that the start lacks
    network = SequentialVaeNetwork(freq=run.stft.freq, **settings)
    load_shared(network, given or recipe.start)
    measured = {}
    if given is None:
        crop = round(recipe.crop_s * run.stft.sample_rate_hz)
        crops = [SpeechCrops(speech, split, crop, run.stft) for split in _SPLITS]
        module = TeacherTraining(recipe, run.stft, network)
        epochs, batch = recipe.teacher_epochs, recipe.batch
        measured["teacher"] = run.fit(module, "teacher", epochs, batch, *crops)
        save_weights(
            run.output / "teacher", network, "dynamic", settings, run.stft, name="teacher", card={}
        )
    return clean_teacher(network), measured


class _Training:
    """The phases of one training."""

    def __init__(
        self,
        recipe: AudioVisualRecipe,
        materials: TrainingData,
        output: Path,
        stft: Stft,
        seed: int,
        settings: Mapping[str, Any],
    ) -> None:
        self.recipe, self.materials, self.output, self.stft = recipe, materials, output, stft
        self.seed, self.settings = seed, {**_SETTINGS, **settings}
        self.metrics: dict[str, dict[str, float]] = {}

    def teacher(self, given: str | Path | None) -> Any:
        """Phase 1, or what it left elsewhere."""
        run = Run(self.recipe, self.stft, self.output, self.seed, **self.settings)
        network, measured = teach(run, self.materials.speech, given)
        self.metrics |= measured
        return network

    def lips(self, given: str | Path | None, guide: Any) -> LipEncoder:
        """Phase 2, or what it left elsewhere."""
        if given is not None:
            return load_lip_encoder(given)[0]
        network = LipEncoder(features=self.recipe.settings["visual"])
        pictures = MouthCrops(self.materials.lips)
        crops = [
            AVSpeechCrops(self.materials.speech, s, self._crop, self.stft, pictures, only_seen=True)
            for s in _SPLITS
        ]
        recipe = replace(self.recipe, learning_rate=self.recipe.lips_rate)
        module = LipsTraining(recipe, self.stft, network, guide)
        self._fit(module, "lips", recipe.lips_epochs, crops)
        return network.eval().requires_grad_(False)

    def pictures(self, seer: LipEncoder | None) -> MouthCrops:
        """Features of all crops, or nothing to see."""
        if seer is None:
            return MouthCrops(())
        crops = MouthCrops(self.materials.lips)
        clips = [clip for clip in self.materials.speech.clips if clip.path in crops]
        return VisualFeatures(crops, seer, {c.path: c.split == "train" for c in clips}, self.seed)

    def prior(self, network: SequentialVaeNetwork, guide: Any, pictures: MouthCrops) -> None:
        """Phase 3."""
        crops = [
            AVSpeechCrops(self.materials.speech, s, self._longer, self.stft, pictures)
            for s in _SPLITS
        ]
        module = PriorTraining(self.recipe, self.stft, network, guide)
        if any(p.requires_grad for p in network.parameters()):
            self._fit(module, "prior", self.recipe.prior_epochs, crops)

    def encoder(self, network: SequentialVaeNetwork, guide: Any, pictures: MouthCrops) -> None:
        """Phase 4."""
        recipe, speech = self.recipe, self.materials.speech
        noise = cast(SpeechCache, self.materials.noise)
        crops = [
            AVMixtureCrops(
                speech, s, self._longer, self.stft, pictures, noise, recipe.snr_db
            )
            for s in _SPLITS
        ]  # fmt: skip
        module = AVEncoderTraining(recipe, self.stft, network, guide)
        self._fit(module, "encoder", recipe.encoder_epochs, crops)

    @property
    def _crop(self) -> int:
        return round(self.recipe.crop_s * self.stft.sample_rate_hz)

    @property
    def _longer(self) -> int:
        return round(self.recipe.encoder_crop_s * self.stft.sample_rate_hz)

    def _fit(self, module: Any, phase: str, epochs: int, crops: list[Any]) -> None:
        run = Run(module.recipe, self.stft, self.output, self.seed, **self.settings)
        self.metrics[phase] = run.fit(module, phase, epochs, module.recipe.batch, *crops)


_SETTINGS: Mapping[str, Any] = {
    "device": "cpu", "precision": "32-true", "workers": 0, "resume": True, "progress": False,
}  # fmt: skip
