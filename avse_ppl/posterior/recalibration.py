"""Recalibration of posteriors by split conformal prediction on recordings of known speech."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from avse_ppl.posterior.posterior import Posterior
from avse_ppl.utils.files import atomic_path, read_json

TABLES = Path(__file__).parent / "tables"
MAIN = 0.9  # the mass at which variances are matched
_LARGEST_LOG_SCALE = 20.0  # of the scale of draws: e^20 is no recalibration of anything
_LARGEST_EDGE_DB = 1000.0
_ORIGIN = ("routine", "kind", "speech", "noise", "predictor")


@dataclass(frozen=True)
class Recalibration:
    r"""How much wider or narrower the regions of one kind of posterior have to be.

    Bins are grouped by their posterior signal-to-noise ratio :math:`\xi = |m|^2 / v`. With
    :math:`q_{gp}` the p-quantile of :math:`|s - m|^2 / v` over the bins of group g in recordings
    whose speech s is known (split conformal prediction), the disc of radius
    :math:`\sqrt{q_{gp} v}` covers as stated on such recordings, whatever the law of the errors.
    Applied to a posterior,

    .. math:: v'_{ft} = v_{ft}\, \frac{q_{g, 0.9}}{-\log 0.1}, \qquad
        s'_d = m + e^{a + \tau \epsilon_d}\, \sqrt{v' / v}\, (s_d - m)

    so that the 90 % disc of ``N_c(m, v')`` is the conformal one. In the waveform, errors of many
    bins add up: a and :math:`\tau` are fitted to the intervals of its samples. The scale of a
    draw is itself unknown, :math:`\epsilon_d \sim N(0, 1)`, one number a draw.

    The guarantee is on average over recordings like those of the fit, not for each of them, and
    not for others.

    Parameters
    ----------
    routine, kind, speech, noise
        Which posteriors it is for: ``attrs["routine"]``, ``kind``, names of prior and noise model.
    fitted_on
        Which recordings, in words.
    recordings
        How many.
    edges_db
        Between the groups, :math:`10 \log_{10} \xi`, dB.
    probabilities
        Masses p.
    quantiles
        :math:`q_{gp}`, ``(group, probability)``.
    log_scale, log_spread
        a and :math:`\tau`.
    predictor
        Name of the predictor that took part; ``"none"`` without.

    References
    ----------
    Vovk, Gammerman and Shafer, "Algorithmic learning in a random world", 2005. Angelopoulos and
    Bates, "Conformal prediction: a gentle introduction", 2023.

    Examples
    --------
    >>> table = shipped_recalibrations()[0]
    >>> table.speech, table.recordings
    ('latent-diffusion', 60)
    """

    routine: str
    kind: str
    speech: str
    noise: str
    fitted_on: str
    recordings: int
    edges_db: tuple[float, ...]
    probabilities: tuple[float, ...]
    quantiles: tuple[tuple[float, ...], ...]
    log_scale: float = 0.0
    log_spread: float = 0.0
    predictor: str = "none"

    def apply(self, posterior: Posterior, *, seed: int = 0) -> Posterior:
        """Recalibrated posterior: same mean, other variance and waveform draws.

        Parameters
        ----------
        posterior
            From the routine, prior and noise model of the fit.
        seed
            Of the order in which the draws get their scales.

        Raises
        ------
        ValueError
            If it came about in another way, or is recalibrated already.
        """
        self.check(posterior)
        factor = self.factor(posterior.mean, posterior.variance)
        attrs = {**posterior.attrs, "recalibration": f"fitted on {self.fitted_on}"}
        return replace(
            posterior, variance=posterior.variance * factor, attrs=attrs,
            kind=posterior.kind.with_fields(recalibrated=True),
            speech=self._draws(posterior, factor, seed),
        )  # fmt: skip

    def check(self, posterior: Posterior) -> None:
        """Raise ValueError unless a posterior is of the kind that this was fitted for."""
        if posterior.kind.recalibrated:
            raise ValueError("this posterior is recalibrated already; take the one before")
        found = origin(posterior)
        wanted = {name: getattr(self, name) for name in _ORIGIN}
        wrong = [name for name in _ORIGIN if found[name] != wanted[name]]
        if wrong:
            told = "; ".join(f"{name} {wanted[name]!r}, found {found[name]!r}" for name in wrong)
            raise ValueError(
                f"this recalibration was fitted for {told}. Fit one for yours with "
                "avse_ppl.evaluation.calibration.fit_recalibration on recordings of known speech"
            )

    def factor(self, mean: np.ndarray, variance: np.ndarray) -> np.ndarray:
        """Ratio of the variance after and before, of the shape of ``variance``."""
        at_main = [self._quantile(row, MAIN) for row in self.quantiles]
        factors = np.array(at_main, variance.dtype) / -np.log1p(-MAIN)
        return factors.astype(variance.dtype)[group_of(mean, variance, self.edges_db)]

    def radius(self, posterior: Posterior, probability: float) -> np.ndarray:
        """Radius of the disc about the mean that holds the stated mass.

        Better than ``disc_radius`` of the recalibrated variance, which is right at 90 % only.

        Parameters
        ----------
        posterior
            Before it is recalibrated.
        probability
            Mass, at most the largest of ``probabilities``.

        Returns
        -------
        numpy.ndarray
            ``(recording, freq, time)``, on the scale of the waveform's STFT.

        Raises
        ------
        ValueError
            If the mass is out of range, or the posterior is of another kind.
        """
        self.check(posterior)
        if not 0 < probability <= max(self.probabilities):
            raise ValueError(
                f"probability must be between 0 and {max(self.probabilities)}, the largest that "
                f"was fitted, not {probability}"
            )
        squared = np.array([self._quantile(row, probability) for row in self.quantiles])
        group = group_of(posterior.mean, posterior.variance, self.edges_db)
        return np.sqrt(squared[group] * posterior.variance)

    def save(self, path: str | Path) -> Path:
        """Write as JSON, atomically."""
        path = Path(path)
        with atomic_path(path) as temporary:
            temporary.write_text(f"{json.dumps(asdict(self), indent=1)}\n", encoding="utf-8")
        return path

    @classmethod
    def load(cls, path: str | Path) -> Recalibration:
        """Read what `save` wrote.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If it is something else.
        """
        path = Path(path)
        fields = read_json(path, "recalibration")
        try:
            for name in ("edges_db", "probabilities"):
                fields[name] = tuple(float(value) for value in fields[name])
            fields["quantiles"] = tuple(tuple(float(v) for v in row) for row in fields["quantiles"])
            for name in {"log_scale", "log_spread"} & set(fields):
                fields[name] = float(fields[name])
            found = cls(**fields)
            found.check_fields()
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            raise ValueError(
                f"{path} is not a recalibration ({error}); expected the JSON of Recalibration.save"
            ) from None
        return found

    def check_fields(self) -> None:
        """Raise ``ValueError`` unless the table is one: finite, growing, and of matching sizes."""
        for name in (*_ORIGIN, "fitted_on"):
            if not isinstance(getattr(self, name), str):
                raise ValueError(f"{name} is {getattr(self, name)!r}, expected a text")
        if type(self.recordings) is not int:
            raise ValueError(f"recordings is {self.recordings!r}, expected a whole number")
        numbers = np.array([self.log_scale, self.log_spread, *self.edges_db], float)
        limits = [_LARGEST_LOG_SCALE] * 2 + [_LARGEST_EDGE_DB] * len(self.edges_db)
        if not (np.abs(numbers) <= limits).all():
            raise ValueError("a scale or an edge is no plausible number")
        if len(self.quantiles) != len(self.edges_db) + 1:
            raise ValueError(f"{len(self.quantiles)} groups for {len(self.edges_db)} edges")
        masses = np.array(self.probabilities)
        for name, row in (("edges_db", self.edges_db), *(("quantiles", q) for q in self.quantiles)):
            if name == "quantiles" and len(row) != len(masses):
                raise ValueError(f"{len(row)} quantiles for {len(masses)} probabilities")
            if not np.isfinite(row).all() or (np.diff(row) < 0).any():
                raise ValueError(f"{name} holds {row}, expected finite numbers in order")
        if not ((masses > 0) & (masses < 1)).all() or (np.diff(masses) <= 0).any():
            raise ValueError(f"probabilities are {self.probabilities}, expected between 0 and 1")
        if any(row[0] < 0 or self._quantile(row, MAIN) <= 0 for row in self.quantiles if row):
            raise ValueError("a quantile is not positive")

    def _quantile(self, row: tuple[float, ...], probability: float) -> float:
        """Between the fitted masses: linear against the quantiles of the Gaussian."""
        gaussian = -np.log1p(-np.array([0.0, *self.probabilities]))
        return float(np.interp(-np.log1p(-probability), gaussian, [0.0, *row]))

    def _draws(self, posterior: Posterior, factor: np.ndarray, seed: int) -> np.ndarray:
        scales = draw_scales(posterior.speech.shape[:2], self.log_spread, seed)
        speech = posterior.speech.copy()
        for r, n in enumerate(posterior.n_samples):
            mean = posterior.enhance(r)
            gaps = scaled(posterior, np.sqrt(factor[r]), r)
            speech[:, :, r, :n] = mean + np.exp(self.log_scale) * scales[..., None] * gaps
        return speech


def shipped_recalibrations() -> list[Recalibration]:
    """Recalibrations that come with the library."""
    return [Recalibration.load(path) for path in sorted(TABLES.glob("*.json"))]


def recalibration_for(posterior: Posterior) -> Recalibration:
    """Find the shipped recalibration of posteriors that came about like this one.

    Raises
    ------
    ValueError
        If there is none.
    """
    return find_shipped(**origin(posterior))


def find_shipped(**wanted: str) -> Recalibration:
    """Find the shipped recalibration by the names of an origin, ``routine`` and others.

    What is not given may be anything; the first that fits is taken.

    Raises
    ------
    ValueError
        If there is none.

    Examples
    --------
    >>> find_shipped(routine="svi", speech="tcvae", predictor="none").kind
    'variational, amortised prior, tempered 0.25'
    """
    tables = shipped_recalibrations()
    for table in tables:
        if all(getattr(table, name) == value for name, value in wanted.items()):
            return table
    known = "; ".join(
        f"{t.routine} ({t.kind}) with {t.speech}, {t.noise} and predictor {t.predictor}"
        for t in tables
    )
    asked = ", ".join(f"{name} {value!r}" for name, value in wanted.items())
    raise ValueError(
        f"no recalibration is shipped for {asked}; there are: {known}. Leave it out, or fit one "
        "with avse_ppl.evaluation.calibration.fit_recalibration on recordings of known speech"
    )


def origin(posterior: Posterior) -> dict[str, str]:
    """Inference method, kind, prior, noise model and predictor of a posterior."""
    names = {name: str(posterior.attrs.get(name, "unknown")) for name in _ORIGIN}
    if not posterior.kind.pooled:
        names["predictor"] = "none"
    return {**names, "kind": posterior.kind}


def group_of(mean: np.ndarray, variance: np.ndarray, edges_db: tuple[float, ...]) -> np.ndarray:
    """Group of each bin by its posterior signal-to-noise ratio ``|m|^2 / v``."""
    ratio = (np.real(mean) ** 2 + np.imag(mean) ** 2) / variance
    return np.searchsorted(10 ** (np.array(edges_db) / 10), ratio)


def scaled(posterior: Posterior, factor: np.ndarray, recording: int) -> np.ndarray:
    """Deviations of the waveform draws, each bin times ``factor``: ``(chain, draw, sample)``."""
    import torch

    n, stft = posterior.n_samples[recording], posterior.stft
    mean = posterior.enhance(recording)
    gains = torch.from_numpy(np.ascontiguousarray(factor[:, : stft.count_frames(n)]))
    gaps = posterior.speech[:, :, recording, :n] - mean
    for gap in gaps.reshape(-1, n):  # one at a time: their STFT is four times their size
        values = stft.forward(torch.from_numpy(gap)) * gains
        gap[:] = stft.inverse(values, n).numpy()
    return gaps


def draw_scales(shape: tuple[int, ...], log_spread: float, seed: int) -> np.ndarray:
    """Scale of each draw: evenly spread quantiles of a log-normal law, in random order."""
    from scipy.special import ndtri

    count = int(np.prod(shape))
    scores = ndtri((np.arange(count) + 0.5) / count)
    order = np.random.default_rng(seed).permutation(count)
    return np.exp(log_spread * scores[order]).astype(np.float32).reshape(shape)
