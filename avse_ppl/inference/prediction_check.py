"""Check of predictions: those that leave the noise in are left out, before inference starts."""

from __future__ import annotations

from dataclasses import replace

import torch

from avse_ppl.inference.vi.svi import SVI
from avse_ppl.models.predictors.error_law import has_shipped_law
from avse_ppl.models.predictors.predictor import USELESS
from avse_ppl.models.protocols import Denoiser
from avse_ppl.models.scene import Scene
from avse_ppl.signal.stft import Spectrogram

_KEPT_DB = -4.0  # of the noise; enhancers keep -5 and less, with few exceptions
_NOISE = 4.0  # times the power of speech, at least, where a bin is one of noise
_STEPS = 15  # of the inference that finds these bins


def leave_out_useless(scene: Scene, predicted: Spectrogram) -> tuple[Spectrogram, dict[int, str]]:
    r"""Predictions without those that leave the noise in, and why, by recording.

    A predictor is believed as far as its error law says, and a law that was fitted to nothing, or
    to other noise, does not know that hardly any noise was removed: the posterior would follow the
    prediction, and keep it. What the prediction keeps of the mixture is therefore measured where a
    short inference without it finds noise, :math:`|x - \hat s|^2 > 4 |\hat s|^2`. Predictors whose
    error law is shipped are known to remove it, and are spared that; of a speech prior without a
    density, which that inference cannot use, nothing is measured, which the reason then says.

    Parameters
    ----------
    scene
        With its predictor.
    predicted
        Mixture with the predictions, see `condition_on_predictor`.

    Examples
    --------
    >>> from avse_ppl import GaussianSpeech, stationary
    >>> from avse_ppl.models.predictors.predictor import Predictor, condition_on_predictor
    >>> noisy = torch.randn(8000, generator=torch.Generator().manual_seed(0)).numpy()
    >>> keep = Predictor(lambda wave, sample_rate_hz: 0.8 * wave, name="keep")
    >>> scene = Scene(GaussianSpeech(), stationary, predictor=keep)
    >>> predicted = condition_on_predictor(scene, scene.stft.analyse(noisy))
    >>> leave_out_useless(scene, predicted)[1][0][:66]
    "the prediction of 'keep' is not used: where this model finds noise"
    """
    predictor, answers = scene.predictor, predicted.frames.predicted
    if predictor is None or answers is None or has_shipped_law(predictor.name):
        return predicted, {}
    counting = [row for row in range(predicted.recordings) if bool(answers[row, 3].any())]
    if isinstance(scene.speech, Denoiser):
        text = (
            f"whether the prediction of {predictor.name!r} leaves the noise in was not measured, "
            "as this speech prior has no density: listen to it, or fit its error law with "
            "'avse-ppl predictors fit'"
        )
        return predicted, dict.fromkeys(counting, text)
    if not counting:
        return predicted, {}
    short = SVI(steps=_STEPS, draws=2, waveforms=False, device=str(predicted.values.device.type))
    alone = short(
        replace(scene, predictor=None),
        predicted.with_predicted(None).with_visual(None),
        seed=[0] * predicted.recordings,
    )
    answers, doubts = answers.clone(), {}
    for row in counting:
        speech, rest = alone.mean[row], alone.mixture[row] - alone.mean[row]
        noisy = torch.from_numpy(abs(rest) ** 2 > _NOISE * abs(speech) ** 2)
        noisy = noisy.to(answers.device)
        time = noisy.shape[-1]
        kept = answers[row, :2, :, :time].square().sum(0)[noisy].sum()
        heard = predicted.power[row, :, :time][noisy].sum()
        kept_db = float(10.0 * torch.log10(kept / heard.clamp_min(1e-20) + 1e-20))
        if kept_db > _KEPT_DB:
            answers[row, 2], answers[row, 3] = USELESS, 0.0
            doubts[row] = (
                f"the prediction of {predictor.name!r} is not used: where this model finds noise, "
                f"it leaves {kept_db:.0f} dB of the mixture, {_KEPT_DB:.0f} or less are expected, "
                "so that it would make the result worse"
            )
    return (predicted.with_predicted(answers), doubts) if doubts else (predicted, {})
