"""Difference of two posteriors of the same recording: in posterior standard deviations, by bin."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from avse_ppl.posterior.approximation import Approximation
from avse_ppl.posterior.functionals import SpeechDraws, square, weigh_bands
from avse_ppl.posterior.posterior import Posterior
from avse_ppl.signal.stft import Stft
from avse_ppl.utils.tables import format_facts, format_facts_html

_BANDS_HZ = ((0.0, 300.0), (300.0, 1000.0), (1000.0, 3000.0), (3000.0, 8000.0))
_LEAST = 1e-20


@dataclass(frozen=True, eq=False, repr=False)
class PosteriorDifference:
    r"""Difference of two posteriors of one recording, each bin a complex Gaussian.

    With means :math:`m_1, m_2` and variances :math:`v_1, v_2` in a bin,

    .. math:: d = |m_1 - m_2| / \sqrt{(v_1 + v_2) / 2}, \quad
        B = \frac{2 \sqrt{v_1 v_2}}{v_1 + v_2} e^{-|m_1 - m_2|^2 / (2 (v_1 + v_2))}

    .. math:: J = \frac{v_1 + |m_1 - m_2|^2}{v_2} + \frac{v_2 + |m_1 - m_2|^2}{v_1} - 2

    Bins are compared one by one: those of overlapping frames are not independent, so that J summed
    over bins overstates the divergence of the posteriors.

    Parameters
    ----------
    sd_units
        d, ``(freq, time)``.
    overlap
        B, the Bhattacharyya coefficient: 1 for the same Gaussian, 0 for ones far apart.
    symmetric_kl
        J, the sum of both Kullback-Leibler divergences (Jeffreys), nats.
    weight
        Expected power of speech in each bin, :math:`|m|^2 + v`, averaged over both.
    wave
        Difference of the posterior mean waveforms, first less second, ``(sample,)``: to listen to.
    mean_wave
        Their average.
    kinds
        Of the posteriors.
    stft
        The front end.

    References
    ----------
    Bhattacharyya, "On a measure of divergence between two statistical populations", 1943. Jeffreys,
    "An invariant form for the prior probability in estimation problems", 1946.
    """

    sd_units: np.ndarray
    overlap: np.ndarray
    symmetric_kl: np.ndarray
    weight: np.ndarray
    wave: np.ndarray
    mean_wave: np.ndarray
    kinds: tuple[Approximation, Approximation]
    stft: Stft

    @property
    def level_db(self) -> float:
        """Level of the difference relative to the enhanced speech, dB."""
        powers = [float(np.mean(square(wave))) for wave in (self.wave, self.mean_wave)]
        return ratio_db(*powers)

    @property
    def mean_sd_units(self) -> float:
        """Root mean square of ``sd_units``, weighted by the power of speech."""
        return float(np.sqrt(np.average(self.sd_units**2, weights=self.weight)))

    @property
    def mean_overlap(self) -> float:
        """Mean overlap, weighted by the power of speech."""
        return float(np.average(self.overlap, weights=self.weight))

    @cached_property
    def loudest(self) -> tuple[float, float, float]:
        """Where the difference is loudest: frame, seconds; frequency, Hz; relative level, dB.

        The level is that of the frame's difference relative to the loudest frame of the speech.
        """
        speech, difference = (
            SpeechDraws(wave[None], np.zeros(()), self.stft) for wave in (self.mean_wave, self.wave)
        )
        power = square(difference.values[0])
        frame = int(np.argmax(power.sum(axis=0)))
        peak = square(speech.values[0]).sum(axis=0).max()
        freq_hz = float(difference.freq_hz[np.argmax(power[:, frame]), 0])
        return float(speech.time_s[frame]), freq_hz, ratio_db(power[:, frame].sum(), peak)

    def level_by_band_db(self) -> dict[tuple[float, float], float]:
        """Level of the difference relative to the speech in bands of hertz, dB."""
        nyquist_hz = self.stft.sample_rate_hz / 2
        bands = [(low, min(high, nyquist_hz)) for low, high in _BANDS_HZ if low < nyquist_hz]
        weights = weigh_bands(bands, self.stft)
        powers = [
            square(SpeechDraws(wave[None], np.zeros(()), self.stft).values[0]).sum(axis=1)
            for wave in (self.wave, self.mean_wave)
        ]
        rows = [ratio_db(a, b) for a, b in zip(*(weights @ power for power in powers), strict=True)]
        return dict(zip(bands, rows, strict=True))

    def facts(self) -> dict[str, object]:
        """Summary in words: how far apart, and whether and where that is heard."""
        time_s, freq_hz, peak_db = self.loudest
        bands = self.level_by_band_db()
        return {
            "posteriors": " and ".join(self.kinds),
            "difference of the means": f"{self.level_db:.1f} dB relative to the speech",
            "in posterior standard deviations": f"{self.mean_sd_units:.2f} (root mean "
            "square, by power)",
            "overlap": f"{self.mean_overlap:.2f} (1: the same)",
            "loudest difference": f"at {time_s:.2f} s, near {freq_hz:.0f} Hz, {peak_db:.1f} dB "
            "relative to the loudest frame of speech",
            "by band": ", ".join(
                f"{a:g}-{b:g} Hz {level:.1f} dB" for (a, b), level in bands.items()
            ),
        }

    def __repr__(self) -> str:
        return format_facts("PosteriorDifference", self.facts())

    def _repr_html_(self) -> str:
        return format_facts_html("PosteriorDifference", self.facts())


def compare_posteriors(first: Posterior, second: Posterior) -> PosteriorDifference:
    """Compare two posteriors of one recording, such as those of two noise models or methods.

    Parameters
    ----------
    first, second
        Of the same recording, by the same front end.

    Raises
    ------
    ValueError
        If they are of several recordings, or of different ones.

    Examples
    --------
    >>> import numpy as np
    >>> from avse_ppl import ComplexNormal, Exact, GaussianSpeech, Scene
    >>> wave = np.random.default_rng(0).normal(size=4000).astype("float32")
    >>> first, second = (
    ...     Exact()(Scene(GaussianSpeech(), lambda f: ComplexNormal(0.0, power)), wave, seed=0)
    ...     for power in (0.5, 1.0)
    ... )
    >>> found = compare_posteriors(first, second)
    >>> 0 < found.mean_overlap < 1, bool((found.symmetric_kl > 0).all())
    (True, True)
    """
    counts = (first.recordings, second.recordings)
    if counts != (1, 1):
        raise ValueError(
            f"expected posteriors of one recording each, found {counts[0]} and {counts[1]}; "
            "select(i) the same of both"
        )
    # Sums of amplitudes are good to about 1e-6 of the largest.
    tolerance = 1e-3 * float(np.abs(first.mixture).max(initial=0.0))
    if (
        first.stft != second.stft
        or first.n_samples != second.n_samples
        or not np.allclose(first.mixture, second.mixture, rtol=1e-3, atol=tolerance)
    ):
        raise ValueError(
            "the posteriors are of different recordings, or of one by different front ends; "
            "compare two that were made of the same recording"
        )
    v1, v2 = (np.maximum(one.variance[0].astype(float), _LEAST) for one in (first, second))
    squared = square(first.mean[0] - second.mean[0]).astype(float)
    both = [square(one.mean[0]) + one.variance[0] for one in (first, second)]
    waves = [one.enhance() for one in (first, second)]
    return PosteriorDifference(
        sd_units=np.sqrt(2 * squared / (v1 + v2)),
        overlap=2 * np.sqrt(v1 * v2) / (v1 + v2) * np.exp(-squared / (2 * (v1 + v2))),
        symmetric_kl=(v1 + squared) / v2 + (v2 + squared) / v1 - 2,
        weight=np.maximum((both[0] + both[1]) / 2, _LEAST),
        wave=waves[0] - waves[1],
        mean_wave=(waves[0] + waves[1]) / 2,
        kinds=(first.kind, second.kind),
        stft=first.stft,
    )


def ratio_db(power: float, reference: float) -> float:
    """Ratio of powers, dB; at least -200 dB."""
    return float(10 * np.log10(max(power, _LEAST) / max(reference, _LEAST)))
