"""Predictions of the chunks of a batch, made before its inference starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from avse_ppl.inference.prediction_check import leave_out_useless
from avse_ppl.models.predictors.adapters import unwrap_combination
from avse_ppl.models.predictors.checks import GuardedEnhancer, PredictorError
from avse_ppl.models.predictors.predictor import condition_on_predictor, shares_visual_encoder
from avse_ppl.models.protocols import name_of
from avse_ppl.models.scene import Scene
from avse_ppl.pipeline.batching import Chunk
from avse_ppl.pipeline.inputs import Observation, ObservedChunks, analyse_chunks
from avse_ppl.posterior.fit_info import FitInfo, merge_rows
from avse_ppl.posterior.posterior import Posterior
from avse_ppl.signal.stft import Spectrogram


@dataclass(frozen=True)
class PredictedBatch:
    """Chunks that are inferred together: all with a prediction, or all without.

    Parameters
    ----------
    chunks
        What they are.
    observed
        Their STFT, with the predictions, and lips.
    scene
        With its predictor, or without.
    remarks
        Why there is no prediction of a chunk, where one was asked for, or one without lips.
    asked
        Whether a predictor was asked for.
    """

    chunks: Sequence[Chunk]
    observed: ObservedChunks
    scene: Scene
    remarks: dict[Chunk, str] = field(default_factory=dict)
    asked: bool = False

    def mark(self, posterior: Posterior) -> Posterior:
        """Note in a posterior why no predictor took part, or one without lips."""
        if not self.asked:
            return posterior
        rows = [
            FitInfo(warnings=(self.remarks[chunk],) if chunk in self.remarks else ())
            for chunk in self.chunks
        ]
        return replace(posterior, fit=merge_rows(posterior.fit, rows))


def predict_batch(
    scene: Scene,
    observations: Sequence[Observation],
    batch: Sequence[Chunk],
    optional: bool,
    wanted: bool = True,
) -> list[PredictedBatch]:
    """Let the predictor of a scene predict each chunk of a batch.

    Parameters
    ----------
    scene, observations, batch
        As in `analyse_chunks`.
    optional
        Whether a chunk whose prediction fails is to be inferred without one.
    wanted
        False for a method that does not pool predictions with the scene: none is made.

    Returns
    -------
    list of PredictedBatch
        One; or two, where some predictions failed and others did not.

    Raises
    ------
    PredictorError
        If a prediction fails that is not optional.
    """
    observed = analyse_chunks(scene.stft, observations, batch)
    if scene.predictor is None or not wanted:
        return [PredictedBatch(batch, observed, scene)]
    observed = show_lips(scene, observed)
    try:
        predicted = condition_on_predictor(scene, observed.spectrogram)
    except PredictorError as error:
        if not optional:
            raise
        failure = error
    else:
        predicted, doubts = leave_out_useless(scene, predicted)
        predicted = predicted.with_visual(None)
        ready = replace_spectrogram(observed, predicted)
        remarks = describe_unseen(scene, observed, batch)
        remarks |= {batch[row]: reason for row, reason in doubts.items()}
        return [PredictedBatch(batch, ready, scene, remarks, asked=True)]

    # Find which failed; a recording's result is not to depend on the others'.
    reasons: dict[Chunk, str] = {}
    for row, chunk in enumerate(batch):
        try:
            condition_on_predictor(scene, observed.spectrogram.select(row))
        except PredictorError as error:
            reasons[chunk] = str(error)
    if not reasons:  # it fails now and then
        reasons = dict.fromkeys(batch, str(failure))
    failed = [chunk for chunk in batch if chunk in reasons]
    others = [chunk for chunk in batch if chunk not in reasons]
    rate_hz = scene.stft.sample_rate_hz
    remarks = {
        chunk: f"enhanced without the predictor{describe_span(chunk, observations, rate_hz)}: "
        f"{reasons[chunk]}"
        for chunk in failed
    }
    without = analyse_chunks(scene.stft, observations, failed)
    parts = [PredictedBatch(failed, without, replace(scene, predictor=None), remarks, asked=True)]
    return (predict_batch(scene, observations, others, optional) if others else []) + parts


def show_lips(scene: Scene, observed: ObservedChunks) -> ObservedChunks:
    """Chunks with the visual features that the predictor of a scene takes, if it takes any."""
    if not shares_visual_encoder(scene):
        return observed
    return replace_spectrogram(observed, observed.spectrogram.with_visual(observed.encode(scene)))


def replace_spectrogram(observed: ObservedChunks, spectrogram: Spectrogram) -> ObservedChunks:
    """Chunks with another spectrogram; scores of the lips that were computed are kept."""
    changed = replace(observed, spectrogram=spectrogram)
    vars(changed).update({k: v for k, v in vars(observed).items() if k == "scores"})
    return changed


def describe_unseen(
    scene: Scene, observed: ObservedChunks, batch: Sequence[Chunk]
) -> dict[Chunk, str]:
    """Why a predictor that uses lips saw none in a chunk."""
    predictor, visual = scene.predictor, observed.spectrogram.frames.visual
    if predictor is None or not predictor.uses_lips:
        return {}
    remarks = {}
    for row, chunk in enumerate(batch):
        if visual is not None and bool(visual[row, 0].any()):
            continue
        reason = "there is no video that is used"
        if observed.lips[row] is not None and not shares_visual_encoder(scene):
            reason = f"the speech prior {name_of(scene.speech)!r} has another visual encoder"
        elif visual is not None and observed.lips[row] is not None:
            reason = "none are reliable"
        remarks[chunk] = f"the predictor {predictor.name!r} saw no lips and only heard: {reason}"
    return remarks


def describe_span(chunk: Chunk, observations: Sequence[Observation], rate_hz: int) -> str:
    """Which part of a recording a chunk is, in words; nothing of a whole one."""
    samples = observations[chunk.recording].audio.n_samples
    if chunk.begin == 0 and chunk.end == samples:
        return ""
    return f" from {chunk.begin / rate_hz:.1f} to {chunk.end / rate_hz:.1f} s"


def list_parts(predictor: Any) -> list[object]:
    """Enhancer and error law of a predictor, which tell it from others; of several, of each."""
    if predictor is None:
        return []
    combined = unwrap_combination(predictor)
    if combined is not None:
        parts = [own for part in combined.parts for own in list_parts(part)]
        return [*parts, combined.combination, predictor.law]
    enhance = predictor.enhance
    return [enhance.enhance if isinstance(enhance, GuardedEnhancer) else enhance, predictor.law]
