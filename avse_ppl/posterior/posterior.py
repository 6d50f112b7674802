"""The posterior over clean speech: draws, moments, intervals, and files that arviz reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from avse_ppl.posterior.approximation import Approximation
from avse_ppl.posterior.fit_info import FitInfo
from avse_ppl.signal.stft import Spectrogram, Stft
from avse_ppl.utils.files import atomic_path
from avse_ppl.utils.plurals import name_count
from avse_ppl.utils.tables import format_facts, format_facts_html

if TYPE_CHECKING:
    from avse_ppl.posterior.functional_posterior import FunctionalPosterior
    from avse_ppl.posterior.functionals import Functional
    from avse_ppl.posterior.recalibration import Recalibration

Arrays = dict[str, np.ndarray]
Axes = tuple[str, ...]
FREQ, TIME = "freq", "time"


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
        What the draws approximate: ``"exact"``, ``"variational"``, ``"point estimate"``,
        ``"Langevin"``; with ``", tempered ..."`` behind it if the likelihood was tempered. A text
        is parsed.
    attrs
        Inference method (``"routine"``), settings, seed, cost.
    trace
        Logged by the method at each step, ``(step, recording)`` each.
    stats
        Statistics of each draw of a sampler, ``(chain, draw, recording)`` each, under arviz's
        names: ``diverging``, ``energy``, ``lp``, ``n_steps``, ``acceptance_rate``.
    axes
        Names of each latent's axes behind the recording: ``"freq"``, ``"time"``, another plate's,
        or ``""``. Of latents that it does not name, axes as long as the grid's are taken for those.
    fit
        Facts about the inference of each recording: seed, warnings, k-hat, figures of chains.

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
    kind: Approximation
    attrs: dict[str, Any] = field(default_factory=dict)
    trace: Arrays = field(default_factory=dict)
    stats: Arrays = field(default_factory=dict)
    axes: dict[str, Axes] = field(default_factory=dict)
    fit: tuple[FitInfo, ...] = ()

    def __post_init__(self) -> None:
        """Parse the kind if it is a text, and have facts about every recording."""
        object.__setattr__(self, "kind", Approximation.parse(self.kind))
        object.__setattr__(self, "fit", tuple(self.fit) or (FitInfo(),) * self.recordings)
        if len(self.fit) != self.recordings:
            raise ValueError(
                f"expected facts about each of {self.recordings} recordings in fit, found "
                f"{len(self.fit)}; leave it out if none are known"
            )

    def facts(self) -> dict[str, object]:
        """What the posterior is of and how it came about, for its ``repr`` in notebooks."""
        shapes = {name: value.shape[3:] for name, value in self.latents.items()}
        longest_s = max(self.n_samples) / self.stft.sample_rate_hz
        chains, draws = self.speech.shape[:2]
        return {
            "kind": self.kind,
            "recordings": f"{self.recordings}, up to {longest_s:.2f} s at "
            f"{self.stft.sample_rate_hz} Hz",
            "waveform draws": f"{name_count(chains, 'chain')} of {draws}",
            "latents": ", ".join(f"{name} {shape}" for name, shape in shapes.items()),
            **{
                name: self.attrs.get(name)
                for name in ("speech", "noise", "routine", "seed", "inference_s")
            },
            **{f"warning {i + 1}": text for i, text in enumerate(self.warnings)},
        }

    def __repr__(self) -> str:
        return format_facts("Posterior", self.facts())

    def _repr_html_(self) -> str:
        return format_facts_html("Posterior", self.facts())

    @property
    def warnings(self) -> tuple[str, ...]:
        """Reasons to distrust the result, of all recordings; empty if there are none.

        Those of each recording are in ``fit``.
        """
        if self.recordings == 1:
            return self.fit[0].warnings
        return tuple(
            f"recording {i}: {t}" for i, info in enumerate(self.fit) for t in info.warnings
        )

    @property
    def diagnostics(self) -> tuple[dict[str, Any], ...]:
        """Figures about the chains of each recording; empty if the draws are not from chains.

        R-hat, effective sample sizes, divergences and energy of log powers of speech and noise; see
        ``avse_ppl.evaluation.diagnostics.chain_figures``.
        """
        figures = [info.chain_figures for info in self.fit]
        return tuple(one for one in figures if one is not None) if all(figures) else ()

    @property
    def reliability(self) -> np.ndarray | None:
        """Posterior mean of the visual gate, ``(recording, time)``; None without video.

        Under a switch, the posterior probability that it is on.
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
        return self.invert_stft(self.mean, recording)

    def noisy(self, recording: int = 0) -> np.ndarray:
        """Waveform of the recording itself, ``(sample,)``."""
        return self.invert_stft(self.mixture, recording)

    def invert_stft(self, values: np.ndarray, recording: int = 0) -> np.ndarray:
        """Waveform ``(sample,)`` of one recording of STFT values ``(recording, freq, time)``."""
        import torch

        n = self.n_samples[recording]
        tensor = torch.from_numpy(np.ascontiguousarray(values[recording]))
        return self.stft.inverse(tensor, n).numpy().astype(np.float32)

    def draws(self, recording: int = 0) -> np.ndarray:
        """Waveform draws of one recording, of all chains, ``(draw, sample)``."""
        n = self.n_samples[recording]
        return self.speech[:, :, recording, :n].reshape(-1, n)

    def observed_spectrogram(self) -> Spectrogram:
        """Spectrogram of the mixture, at unit mean power, as `Stft.analyse` made it.

        A mixture that was not normalised (from `simulate`) cannot be had back from the posterior.

        Examples
        --------
        >>> from avse_ppl import SVI, GaussianSpeech, Scene, stationary
        >>> wave = np.random.default_rng(0).normal(size=4000).astype("float32")
        >>> posterior = SVI(steps=5, draws=2)(Scene(GaussianSpeech(), stationary), wave, seed=0)
        >>> round(float(posterior.observed_spectrogram().power.mean()), 3)
        1.0
        """
        import torch

        from avse_ppl.signal.observed_bins import mark_observed

        values = torch.from_numpy(np.ascontiguousarray(self.mixture))
        counts = torch.tensor([self.stft.count_frames(n) for n in self.n_samples])
        energy = values.abs().square().sum((1, 2))
        scale = (energy / (counts * values.shape[1])).clamp_min(1e-20).sqrt()
        frames = self.stft.frames(max(self.n_samples))
        values = values / scale[:, None, None]
        return mark_observed(Spectrogram(values, frames, self.n_samples, scale, self.stft))

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
                "the method with 50 draws or more"
            )
        tail = (1 - probability) / 2
        length = self.mean.shape[-1] if of == "magnitude" else max(self.n_samples)
        rows = []
        for recording in range(self.recordings):
            values = self.magnitudes(recording) if of == "magnitude" else self.draws(recording)
            bounds = np.quantile(values, (tail, 1 - tail), axis=0, method="weibull")
            padding = (0, length - bounds.shape[-1])  # of the shorter recordings
            rows.append(np.pad(bounds, [*[(0, 0)] * (bounds.ndim - 1), padding]))
        low, high = np.stack(rows, axis=1)
        return low, high

    def magnitudes(self, recording: int = 0) -> np.ndarray:
        """STFT magnitude of the waveform draws, ``(draw, freq, time)``."""
        import torch

        waves = torch.from_numpy(np.ascontiguousarray(self.draws(recording)))
        return self.stft.forward(waves).abs().numpy()

    def of(
        self,
        function: Functional | Callable[..., Any],
        *,
        over: str = "waveform",
        vectorised: bool = False,
        draws: int | None = None,
        name: str | None = None,
        unit: str = "",
    ) -> FunctionalPosterior:
        """Posterior of a functional of speech: of any function, evaluated on each draw.

        Parameters
        ----------
        function
            One of `avse_ppl.posterior.functionals`, such as ``Level()``; or a function that
            returns a number or an array, of one draw: ``function(wave, rate_hz)`` with ``wave``
            ``(sample,)``, or over the STFT ``function(values, freq_hz, time_s)`` with complex
            ``values`` ``(freq, time)`` on the scale of the waveform's STFT, ``freq_hz``
            ``(freq, 1)`` and ``time_s`` ``(time,)``.
        over
            ``"waveform"`` or ``"stft"``: what a function of one's own takes.
        vectorised
            Whether it takes many draws at once, along a first axis, and returns them along it.
        draws
            At most so many of each chain, evenly spaced: for what takes long. All by default.
        name, unit
            Of a function of one's own, for tables and datasets.

        Raises
        ------
        ValueError
            If there are no waveform draws, or the function returns anything but real numbers, of
            one shape for all draws.

        Examples
        --------
        >>> import numpy as np
        >>> from avse_ppl import ComplexNormal, Exact, GaussianSpeech, Scene
        >>> from avse_ppl.posterior.functionals import Level
        >>> wave = np.random.default_rng(0).normal(size=4000).astype("float32")
        >>> scene = Scene(GaussianSpeech(gain_sd_db=0.0), lambda frames: ComplexNormal(0.0, 1.0))
        >>> posterior = Exact()(scene, wave, seed=0)
        >>> peak = posterior.of(lambda wave, rate_hz: abs(wave).max())
        >>> peak.mean.shape, bool((peak.mcse < peak.sd).all())
        ((1,), True)
        >>> posterior.of(Level(spans_s="frames")).interval(0.9)[0].shape
        (1, 17)
        """
        from avse_ppl.posterior.functional_posterior import UserFunctional, evaluate_functionals
        from avse_ppl.posterior.functionals import Functional

        if not isinstance(function, Functional):
            named = name or getattr(function, "__name__", type(function).__name__)
            named = "functional" if named == "<lambda>" else named
            function = UserFunctional(function, over, vectorised, named, unit)
        [found] = evaluate_functionals(self, [function], draws)
        return found

    def save_draws(self, folder: str | Path) -> list[Path]:
        """Write the waveform draws as WAV files of 32-bit floats; returns them.

        ``draw_000.wav`` and so on, chain after chain; of several recordings in a folder
        ``recording_0`` each.

        Raises
        ------
        ValueError
            If there are no waveform draws.
        FileExistsError
            If the folder holds something already, so that no draws of two posteriors are mixed.
        """
        from avse_ppl.signal.audio import Audio, save_audio
        from avse_ppl.utils.files import check_folder

        folder = check_folder(folder)
        if self.speech.shape[0] * self.speech.shape[1] == 0:
            raise ValueError(
                "this posterior holds no waveform draws to write; make it again with "
                "waveforms=True, or write its mean by save_audio"
            )
        if folder.exists() and any(folder.iterdir()):
            raise FileExistsError(
                f"expected a new or an empty folder at '{folder}', found something; name another"
            )
        paths = []
        for recording in range(self.recordings):
            place = folder / f"recording_{recording}" if self.recordings > 1 else folder
            place.mkdir(parents=True, exist_ok=True)
            for i, wave in enumerate(self.draws(recording)):
                audio = Audio(wave, self.stft.sample_rate_hz)
                paths.append(save_audio(place / f"draw_{i:03d}.wav", audio))
        return paths

    def to_xarray(self) -> Any:
        """Return the same as an xarray tree: named dimensions, coordinates in Hz and seconds.

        The groups and variables of the file that `save` writes, with their units in the attribute
        ``units`` of each; where shorter recordings are padded, ``n_samples`` says from where.

        Examples
        --------
        >>> import numpy as np
        >>> from avse_ppl import SVI, GaussianSpeech, Scene, stationary
        >>> wave = np.random.default_rng(0).normal(size=4000).astype("float32")
        >>> posterior = SVI(steps=5, draws=2)(Scene(GaussianSpeech(), stationary), wave, seed=0)
        >>> tree = posterior.to_xarray()
        >>> tree["constant_data"]["speech_variance"].dims
        ('recording', 'freq_hz', 'time_s')
        >>> tree["posterior"]["speech"].sel(sample_s=slice(0.1, 0.2)).sizes["sample_s"]
        1601
        """
        import xarray

        from avse_ppl.posterior.netcdf import attributes, datasets, label_units

        groups = {f"/{k}": label_units(data) for k, data in datasets(self).items()}
        groups["/"] = xarray.Dataset(attrs=attributes(self))
        return xarray.DataTree.from_dict(groups)

    def to_arviz(self) -> Any:
        """Return the same as arviz inference data: groups, named dimensions, coordinates.

        Groups: ``posterior`` (latents, and ``speech`` waveforms), ``observed_data`` (mixture),
        ``constant_data`` (moments of the speech STFT), ``sample_stats`` (of a sampler's draws),
        ``routine_trace``. Complex arrays are split into ``_re`` and ``_im``.

        Of a posterior of one recording, ``sample_stats`` are ``(chain, draw)``, as ``bfmi`` and
        ``plot_energy`` of arviz want them; of several, ``select(i)`` one first. There is no
        log-likelihood group for ``loo`` and ``waic``: bins of overlapping frames are not
        independent, which `avse_ppl.compare` and `avse_ppl.evaluation.loo.loo` allow for; nor a
        posterior predictive one for ``plot_ppc``: see `avse_ppl.diagnose`.
        """
        import arviz

        from avse_ppl.posterior.netcdf import attributes, datasets

        groups = datasets(self)
        if self.recordings == 1 and "sample_stats" in groups:
            groups["sample_stats"] = groups["sample_stats"].squeeze("recording", drop=True)
        if "InferenceData" in vars(arviz):  # arviz 0.x; 1.x reads trees, and warns if asked for it
            stats = groups.pop("routine_trace", None)
            data = arviz.InferenceData(attrs=attributes(self), **groups)  # type: ignore[arg-type]
            if stats is not None:
                data.add_groups({"routine_trace": stats}, warn_on_custom_groups=False)
            return data
        import xarray

        return xarray.DataTree.from_dict({f"/{k}": v for k, v in groups.items()})

    def save(self, path: str | Path) -> Path:
        """Write a NetCDF file that `load` and ``arviz.from_netcdf`` read.

        The file is written atomically: it is whole or not there.

        Raises
        ------
        ValueError
            If `load` would refuse it, as of moments that are not finite; nothing is written.
        """
        import xarray

        from avse_ppl.posterior.netcdf import attributes, check_saveable, datasets

        path = Path(path)
        try:
            check_saveable(self)
        except ValueError as error:
            raise ValueError(f"cannot save a posterior at '{path}': {error}") from None
        groups: dict[str, Any] = {f"/{name}": data for name, data in datasets(self).items()}
        groups["/"] = xarray.Dataset(attrs=attributes(self))
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
            From ``fit_recalibration``; by default the shipped one for this method, prior and
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
        recording = range(self.recordings)[recording]
        n, info = self.n_samples[recording], self.fit[recording]
        time, one = self.stft.count_frames(n), slice(recording, recording + 1)
        latents = {}
        for name, value in self.latents.items():
            axes = name_grid_axes(self.axes.get(name), value.shape[3:], self.grid)
            cuts = [slice(time if axis == TIME else None) for axis in axes]
            latents[name] = value[:, :, one][(..., *cuts)]
        attrs = self.attrs if info.seed is None else {**self.attrs, "seed": info.seed}
        return replace(
            self, attrs=dict(attrs), mean=self.mean[one, :, :time],
            variance=self.variance[one, :, :time], mixture=self.mixture[one, :, :time],
            speech=self.speech[:, :, one, :n], latents=latents, n_samples=(n,), fit=(info,),
            trace={key: value[:, one] for key, value in self.trace.items()},
            stats={key: value[:, :, one] for key, value in self.stats.items()},
        )  # fmt: skip

    @property
    def grid(self) -> dict[str, int]:
        """Length of the time-frequency grid along each of its axes."""
        return dict(zip((FREQ, TIME), self.mean.shape[1:], strict=True))


def name_grid_axes(axes: Axes | None, shape: tuple[int, ...], grid: Mapping[str, int]) -> Axes:
    """Names of a latent's axes, those of the grid only where they are as long as the grid's.

    An axis of no plate is the grid's if it has its place and its length.

    Examples
    --------
    >>> grid = {"freq": 33, "time": 8}
    >>> name_grid_axes(("freq", "component"), (33, 8), grid), name_grid_axes(None, (33, 8), grid)
    (('freq', 'component'), ('freq', 'time'))
    """
    known = axes or ("",) * len(shape)
    places = (FREQ, TIME, *[""] * len(shape))
    named = [name or place for name, place in zip(known, places, strict=False)]
    return tuple(
        name if name not in grid or grid[name] == size else ""
        for name, size in zip(named, shape, strict=True)
    )
