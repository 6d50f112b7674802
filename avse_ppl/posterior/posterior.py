"""The posterior over clean speech: draws, moments, intervals, and files that arviz reads."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from avse_ppl.signal.stft import Stft
from avse_ppl.utils.files import atomic_path

if TYPE_CHECKING:
    import xarray

    from avse_ppl.posterior.recalibration import Recalibration

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Posterior:
    r"""Posterior over the clean speech of one or several recordings.

    Over draws d of the latents, with Wiener gain ``G`` and speech law ``N_c(m_d, c_d)`` each,

    .. math:: E[s|x] = \overline{m_d}, \qquad
        \mathrm{Var}[s|x] = \overline{c_d} + \overline{|m_d - \overline{m}|^2}

    which is the law of total variance: what Wiener filtering leaves, plus what is not known about
    the latents.

    Parameters
    ----------
    mean
        ``E[s|x]``, complex, ``(recording, freq, time)``, on the scale of the waveform's STFT.
    variance
        ``Var[s|x]``, ``(recording, freq, time)``.
    mixture
        STFT of the recording, ``(recording, freq, time)``.
    speech
        Waveform draws, ``(chain, draw, recording, sample)``.
    latents
        Draws of the latents, ``(chain, draw, recording, ...)``.
    n_samples
        Length of each recording.
    stft
        The front end.
    kind
        How the draws came about: ``"exact"``, ``"variational"``, ``"point estimate"``,
        ``"Langevin"``; with ``", tempered ..."`` behind it if the likelihood was tempered.
    attrs
        Routine, settings, seed, cost.
    trace
        What the routine logged at each step, ``(step, recording)`` each.
    stats
        What a sampler says of each draw, ``(chain, draw, recording)`` each, under arviz's names:
        ``diverging``, ``energy``, ``lp``, ``n_steps``, ``acceptance_rate``.
    axes
        Names of each latent's axes behind the recording: ``"freq"``, ``"time"``, another plate's,
        or ``""``. Of latents that it does not name, axes as long as the grid's are taken for those.

    Examples
    --------
    >>> import numpy as np
    >>> from avse_ppl import ComplexNormal, Exact, GaussianSpeech, Scene
    >>> wave = np.random.default_rng(0).normal(size=4000).astype("float32")
    >>> scene = Scene(GaussianSpeech(gain_sd_db=0.0), lambda frames: ComplexNormal(0.0, 1.0))
    >>> posterior = Exact()(scene, wave, seed=0)
    >>> low, high = posterior.interval(0.9)
    >>> low.shape, posterior.kind
    ((1, 4000), 'exact')
    """

    mean: np.ndarray
    variance: np.ndarray
    mixture: np.ndarray
    speech: np.ndarray
    latents: Arrays
    n_samples: tuple[int, ...]
    stft: Stft
    kind: str
    attrs: dict[str, Any] = field(default_factory=dict)
    trace: Arrays = field(default_factory=dict)
    stats: Arrays = field(default_factory=dict)
    axes: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the routine found wrong with its own result; empty if nothing.

        ``attrs["warnings"]`` holds a list of texts for each recording.
        """
        rows = self.attrs.get("warnings", [])
        if len(rows) <= 1:
            return tuple(text for row in rows for text in row)
        return tuple(f"recording {i}: {text}" for i, row in enumerate(rows) for text in row)

    @property
    def diagnostics(self) -> tuple[dict[str, Any], ...]:
        """Figures about the chains of each recording; empty if the draws are not from chains.

        R-hat, effective sample sizes, divergences and energy of log powers of speech and noise; see
        ``avse_ppl.evaluation.diagnostics.chain_figures``.
        """
        return tuple(self.attrs.get("diagnostics", ()))

    @property
    def reliability(self) -> np.ndarray | None:
        """How far the lips counted, ``(recording, time)``, mean over draws; None without video.

        Under a switch, the posterior probability that they do.
        """
        gate = self.latents.get("reliability")
        if gate is None:
            return None
        return gate.mean((0, 1)).reshape(self.recordings, -1)

    @property
    def recordings(self) -> int:
        """Number of recordings."""
        return self.mean.shape[0]

    @property
    def sd(self) -> np.ndarray:
        """Standard deviation of ``|s - E[s|x]|``, ``(recording, freq, time)``."""
        return np.sqrt(self.variance)

    def enhance(self, recording: int = 0) -> np.ndarray:
        """Posterior mean waveform of one recording, ``(sample,)``.

        The mean minimises the expected squared error under the posterior.
        """
        return self._wave(self.mean, recording)

    def noisy(self, recording: int = 0) -> np.ndarray:
        """Waveform of the recording itself, ``(sample,)``."""
        return self._wave(self.mixture, recording)

    def draws(self, recording: int = 0) -> np.ndarray:
        """Waveform draws of one recording, chains joined, ``(draw, sample)``."""
        n = self.n_samples[recording]
        return self.speech[:, :, recording, :n].reshape(-1, n)

    def interval(
        self, probability: float = 0.9, of: str = "waveform"
    ) -> tuple[np.ndarray, np.ndarray]:
        """Central credible interval in each sample, or in each bin of the STFT magnitude.

        Both are quantiles over the waveform draws: the k-th smallest of D stands for the mass
        ``k / (D + 1)``, so that few draws hold the truth as often as many. A tail below about 1/D
        is not resolved.

        Parameters
        ----------
        probability
            Mass between the bounds, in (0, 1).
        of
            ``"waveform"``, bounds ``(recording, sample)``; or ``"magnitude"``, bounds
            ``(recording, freq, time)``.

        Raises
        ------
        ValueError
            If the probability is outside (0, 1), ``of`` unknown, or there are under 2 draws.
        """
        if not 0 < probability < 1:
            raise ValueError(f"probability must be between 0 and 1, not {probability}")
        if of not in ("waveform", "magnitude"):
            raise ValueError(f"of must be 'waveform' or 'magnitude', not {of!r}")
        chains, draws = self.speech.shape[:2]
        if chains * draws < 2:
            raise ValueError(
                f"an interval needs at least 2 draws, this posterior holds {chains * draws}; run "
                "the routine with draws=50 or more"
            )
        tail = (1 - probability) / 2
        bounds = [self._quantiles(i, (tail, 1 - tail), of) for i in range(self.recordings)]
        low, high = np.stack(bounds, axis=1)
        return low, high

    def magnitudes(self, recording: int = 0) -> np.ndarray:
        """STFT magnitude of the waveform draws, ``(draw, freq, time)``."""
        import torch

        waves = torch.from_numpy(np.ascontiguousarray(self.draws(recording)))
        return self.stft.forward(waves).abs().numpy()

    def to_arviz(self) -> Any:
        """Return the same as arviz inference data: groups, named dimensions, coordinates.

        Groups: ``posterior`` (latents, and ``speech`` waveforms), ``observed_data`` (mixture),
        ``constant_data`` (moments of the speech STFT), ``sample_stats`` (of a sampler's draws),
        ``routine_trace``. Complex arrays are split into ``_re`` and ``_im``.
        """
        import arviz

        groups = self._datasets()
        if "InferenceData" in vars(arviz):  # arviz 0.x; 1.x reads trees, and warns if asked for it
            stats = groups.pop("routine_trace", None)
            data = arviz.InferenceData(attrs=self._attributes(), **groups)  # type: ignore[arg-type]
            if stats is not None:
                data.add_groups({"routine_trace": stats}, warn_on_custom_groups=False)
            return data
        import xarray

        return xarray.DataTree.from_dict({f"/{k}": v for k, v in groups.items()})

    def save(self, path: str | Path) -> Path:
        """Write a NetCDF file that `load` and ``arviz.from_netcdf`` read.

        The file is written atomically: it is whole or not there.
        """
        import xarray

        path = Path(path)
        groups: dict[str, Any] = {f"/{name}": data for name, data in self._datasets().items()}
        groups["/"] = xarray.Dataset(attrs=self._attributes())
        packed = {
            key: {str(name): {"zlib": True, "complevel": 1} for name in data.data_vars}
            for key, data in groups.items()
        }
        tree = xarray.DataTree.from_dict(groups)
        with atomic_path(path) as temporary:
            tree.to_netcdf(temporary, engine="h5netcdf", encoding=packed)
        return path

    @classmethod
    def load(cls, path: str | Path) -> Posterior:
        """Read what `save` wrote.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If it is not a posterior of this library.
        """
        from avse_ppl.posterior.netcdf import read

        return cls(**read(Path(path)))

    def recalibrated(
        self, recalibration: Recalibration | None = None, *, seed: int = 0
    ) -> Posterior:
        """Return the same with variance and draws scaled so that intervals cover as they state.

        Parameters
        ----------
        recalibration
            From ``fit_recalibration``; by default the shipped one for this routine, prior and
            noise model. The attribute ``"recalibration"`` says what it was fitted on.
        seed
            Of the order in which the draws get their scales.

        Raises
        ------
        ValueError
            If it was fitted for posteriors of another kind, or none is shipped for this one.
        """
        from avse_ppl.posterior.recalibration import recalibration_for

        return (recalibration or recalibration_for(self)).apply(self, seed=seed)

    def select(self, recording: int) -> Posterior:
        """Posterior of one recording of the batch, padding removed."""
        from avse_ppl.posterior.axes import select

        return select(self, recording)

    def _wave(self, values: np.ndarray, recording: int) -> np.ndarray:
        import torch

        n = self.n_samples[recording]
        tensor = torch.from_numpy(np.ascontiguousarray(values[recording]))
        return self.stft.inverse(tensor, n).numpy().astype(np.float32)

    def _quantiles(self, recording: int, levels: tuple[float, float], of: str) -> np.ndarray:
        values = self.magnitudes(recording) if of == "magnitude" else self.draws(recording)
        bounds = np.quantile(values, levels, axis=0, method="weibull")
        length = self.mean.shape[-1] if of == "magnitude" else max(self.n_samples)
        missing = length - bounds.shape[-1]  # padding of the shorter recordings
        return np.pad(bounds, [(0, 0)] * (bounds.ndim - 1) + [(0, missing)])

    def _datasets(self) -> dict[str, xarray.Dataset]:
        from avse_ppl.posterior.netcdf import datasets

        return datasets(self)

    def _attributes(self) -> dict[str, Any]:
        from avse_ppl.posterior.netcdf import attributes

        return attributes(self)
