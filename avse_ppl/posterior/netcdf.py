"""NetCDF files of a posterior, and its labelled datasets."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from avse_ppl.posterior.approximation import Approximation
from avse_ppl.posterior.fit_info import FitInfo, fit_from_attrs, fit_to_attrs
from avse_ppl.signal.stft import Stft
from avse_ppl.utils.hdf5 import check_hdf5_sizes

if TYPE_CHECKING:
    import xarray

    from avse_ppl.posterior.posterior import Axes, Posterior

_FORMAT = 1
_GRID = ("recording", "freq_hz", "time_s")
# Amplitudes are re full scale; those of the STFT are of the waveform's, not normalised.
_UNITS = MappingProxyType(
    {
        "speech": "full scale",
        "speech_mean_re": "full scale",
        "speech_mean_im": "full scale",
        "speech_variance": "full scale^2",
        "mixture_re": "full scale",
        "mixture_im": "full scale",
        "n_samples": "sample",
    }
)
_GRID_NAMES = MappingProxyType({"freq": "freq_hz", "time": "time_s"})


def datasets(posterior: Posterior) -> dict[str, xarray.Dataset]:
    """Return groups of named, coordinated arrays; complex ones split into ``_re`` and ``_im``."""
    import xarray

    recordings, freq, time = posterior.mean.shape
    stft = posterior.stft
    coords = {
        "recording": np.arange(recordings),
        "freq_hz": np.arange(freq) * (stft.sample_rate_hz / stft.n_fft),
        "time_s": np.arange(time) * (stft.hop / stft.sample_rate_hz),
    }
    moments = {**_split("speech_mean", posterior.mean), "speech_variance": posterior.variance}
    groups = {
        "posterior": _draws_dataset(posterior, coords),
        "observed_data": _grid_dataset(_split("mixture", posterior.mixture), coords),
        "constant_data": _grid_dataset(moments, coords),
    }
    groups["constant_data"]["n_samples"] = ("recording", np.array(posterior.n_samples))
    if posterior.trace:
        traces = {key: (("step", "recording"), value) for key, value in posterior.trace.items()}
        groups["routine_trace"] = xarray.Dataset(traces)
    if posterior.stats:
        dims = ("chain", "draw", "recording")
        stats = {key: (dims, value) for key, value in posterior.stats.items()}
        groups["sample_stats"] = xarray.Dataset(stats)
    for data in groups.values():
        data.attrs.update(attributes(posterior))
    return groups


def _draws_dataset(posterior: Posterior, coords: dict[str, np.ndarray]) -> xarray.Dataset:
    """Latents and waveforms on one ``draw`` axis.

    Point estimates have fewer draws of the latents than waveforms, chains fewer waveforms than
    draws: each waveform stands beside latents it was drawn with, so the fewer ones repeat, and
    ``draws`` says how many are distinct.
    """
    import xarray

    from avse_ppl.posterior.posterior import name_grid_axes

    chains, waves, _, samples = posterior.speech.shape
    arrays = {
        name: (
            _names(name, name_grid_axes(posterior.axes.get(name), value.shape[3:], posterior.grid)),
            value,
        )
        for name, value in posterior.latents.items()
    }
    if waves:
        arrays["speech"] = (["sample_s"], posterior.speech)
    draws = max((value.shape[1] for _, value in arrays.values()), default=0)
    index = np.arange(draws)
    data = {
        name: (("chain", "draw", "recording", *names), value[:, _repeats(name, value, draws)],
               {"draws": value.shape[1]})
        for name, (names, value) in arrays.items()
    }  # fmt: skip
    sample_s = np.arange(samples) / posterior.stft.sample_rate_hz
    own = {"chain": np.arange(chains), "draw": index, "sample_s": sample_s}
    return xarray.Dataset(data, {**coords, **own})


def _repeats(name: str, value: np.ndarray, draws: int) -> np.ndarray:
    """Which of the draws of one array stands in each of ``draws`` places."""
    index, found = np.arange(draws), value.shape[1]
    return index * found // draws if name == "speech" else index % found


def _distinct(name: str, value: Any) -> np.ndarray:
    """Undo the repeats."""
    draws, found = value.sizes["draw"], int(value.attrs["draws"])
    index = np.arange(found)
    return value.values[:, -(-index * draws // found) if name == "speech" else index]


def label_units(data: xarray.Dataset) -> xarray.Dataset:
    """Put the units of coordinates and of known variables into their attributes."""
    for name, values in data.variables.items():
        unit = {"hz": "Hz", "s": "s"}.get(str(name).rpartition("_")[2])
        if unit is None:
            unit = _UNITS.get(str(name))
        if unit is not None:
            values.attrs["units"] = unit
    return data


def attributes(posterior: Posterior) -> dict[str, Any]:
    """Attributes of the file: kind, format, front end, settings and facts about the fit."""
    settings = {**posterior.attrs, **fit_to_attrs(posterior.fit)}
    return {
        "kind": str(posterior.kind),
        "avse_ppl_format": _FORMAT,
        "stft": json.dumps(asdict(posterior.stft)),
        "settings": json.dumps(
            settings, default=lambda one: one.item() if isinstance(one, np.generic) else str(one)
        ),
    }


def check_saveable(posterior: Posterior) -> None:
    """Raise ``ValueError`` if `read` would refuse the file of a posterior.

    Where only some recordings are to blame, the message says which.

    Examples
    --------
    >>> from dataclasses import replace
    >>> from avse_ppl import SVI, GaussianSpeech, Scene, stationary
    >>> waves = np.random.default_rng(0).normal(size=(2, 4000)).astype("float32")
    >>> posterior = SVI(steps=5, draws=2)(Scene(GaussianSpeech(), stationary), waves, seed=0)
    >>> check_saveable(posterior)
    >>> posterior.variance[1, 0, 0] = np.nan
    >>> check_saveable(posterior)
    Traceback (most recent call last):
    ValueError: speech_variance holds values that are not finite numbers (recording 1)...
    """
    settings = json.loads(attributes(posterior)["settings"])
    _, fit = fit_from_attrs(settings, posterior.recordings)
    whole = {
        name: getattr(posterior, name)
        for name in ("mean", "variance", "mixture", "speech", "latents", "n_samples", "stft",
                     "trace", "stats")
    }  # fmt: skip
    try:
        check_arguments(**whole, fit=fit)
    except ValueError as error:
        reason, failed = str(error), find_unusable(posterior)
        which = f" (recording {', '.join(map(str, failed))})" if posterior.recordings > 1 else ""
        raise ValueError(
            f"{reason}{which if failed else ''}, and the file of such a posterior would be refused "
            "when it is read. Nothing was written, and the posterior is unchanged: save the other "
            "recordings by posterior.select(i).save(path), or keep enhance(i); a model whose "
            "powers have a floor has finite moments"
        ) from None


def find_unusable(posterior: Posterior) -> list[int]:
    """Recordings with speech or a mixture that a file must not hold."""
    found = []
    for r in range(posterior.recordings):
        arrays = (posterior.mean[r], posterior.mixture[r], posterior.speech[:, :, r])
        arrays = (*arrays, posterior.variance[r])
        if not all(is_usable(one) for one in arrays) or (posterior.variance[r] < 0).any():
            found.append(r)
    return found


def is_usable(values: np.ndarray) -> bool:
    """Whether values are finite numbers, and so are sums of their squares."""
    return bool(np.isfinite(values).all()) and np.abs(values).max(initial=0.0) <= limit_of(values)


def limit_of(values: np.ndarray) -> float:
    """Largest magnitude of which sums of squares are finite."""
    return float(np.sqrt(np.finfo(values.dtype).max) / 1e3)


def read(path: Path) -> dict[str, Any]:
    """Arguments of the `Posterior` that a file holds; see ``Posterior.load``."""
    import xarray

    if not path.is_file():
        raise FileNotFoundError(
            f"no posterior at {path}; expected a file written by Posterior.save or "
            "'avse-ppl enhance --posterior'"
        )
    try:
        check_hdf5_sizes(path)
        with warnings.catch_warnings():
            # Remarks on attributes that do not fit, of which the check below knows more.
            warnings.simplefilter("ignore", xarray.SerializationWarning)
            with xarray.open_datatree(path, engine="h5netcdf") as tree:
                tree.load()
        found_format = tree.attrs["avse_ppl_format"]
        if found_format != _FORMAT:
            raise ValueError(
                f"avse_ppl_format is {found_format}, this version of the library reads {_FORMAT}: "
                "make it again, or read it with the version that wrote it"
            )
        found = _arguments(tree)
        check_arguments(**found)
        return found
    except Exception as error:  # HDF5 and xarray raise nearly anything on a damaged file
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise ValueError(
            f"{path} is not a posterior saved by this library ({reason}); expected a NetCDF file "
            "written by Posterior.save or 'avse-ppl enhance --posterior'"
        ) from None


def check_arguments(
    *,
    mean: np.ndarray,
    variance: np.ndarray,
    mixture: np.ndarray,
    speech: np.ndarray,
    latents: Mapping[str, np.ndarray],
    n_samples: Sequence[int],
    stft: Stft,
    fit: Sequence[FitInfo],
    trace: Mapping[str, np.ndarray],
    stats: Mapping[str, np.ndarray],
    **_: Any,
) -> None:
    """Raise ``ValueError`` unless the arguments of a `Posterior` fit together, and are finite."""
    recordings = len(n_samples)
    sizes = (stft.n_fft, stft.hop, stft.sample_rate_hz)
    if any(type(size) is not int or size < 1 for size in sizes):
        raise ValueError(f"the front end {stft}")
    if recordings == 0 or min(n_samples) < 1:
        raise ValueError(f"recordings of {list(n_samples)} samples")
    grid = (recordings, stft.freq, stft.count_frames(max(n_samples)))
    draws = (*speech.shape[:2], recordings, max(n_samples))
    for name, values, shape in (
        ("speech_mean", mean, grid),
        ("speech_variance", variance, grid),
        ("mixture", mixture, grid),
        ("speech", speech, draws),
    ):
        if values.shape != shape:
            raise ValueError(f"{name} has the shape {values.shape}, expected {shape}")
        if values.dtype.kind not in "fc" or not np.isfinite(values).all():
            raise ValueError(f"{name} holds values that are not finite numbers")
        if not is_usable(values):
            raise ValueError(f"{name} holds values beyond {limit_of(values):.0e}")
    if (variance < 0).any():
        raise ValueError("speech_variance is negative")
    for axis, group in ((2, latents), (1, trace), (2, stats)):
        for name, values in group.items():
            if values.dtype.kind not in "fiub" or values.shape[axis : axis + 1] != (recordings,):
                raise ValueError(f"{name} is no array of numbers of {recordings} recordings")
    for name, values in latents.items():
        if values.shape[0] != len(speech) or values.shape[1] == 0:
            raise ValueError(f"{name} has the shape {values.shape}, expected {len(speech)} chains")
    for info in fit:
        figures = (info.k_hat, info.elbo_rise)
        if (
            not isinstance(info.seed, int | None)
            or not all(isinstance(text, str) for text in info.warnings)
            or not all(isinstance(figure, int | float | None) for figure in figures)
            or not isinstance(info.chain_figures, dict | None)
        ):
            raise ValueError(f"the facts about the fit {info}")


def _arguments(tree: Any) -> dict[str, Any]:
    draws, constant, observed = tree["posterior"], tree["constant_data"], tree["observed_data"]
    trace, stats = (
        {str(key): value.values for key, value in tree[name].data_vars.items()}
        if name in tree.children else {}
        for name in ("routine_trace", "sample_stats")
    )  # fmt: skip
    arrays = {str(name): _distinct(str(name), value) for name, value in draws.data_vars.items()}
    latents = {str(k): value for k, value in draws.data_vars.items() if k != "speech"}
    no_waves = np.zeros(
        (draws.sizes["chain"], 0, draws.sizes["recording"], draws.sizes["sample_s"]), np.float32
    )
    attrs, fit = fit_from_attrs(json.loads(tree.attrs["settings"]), draws.sizes["recording"])
    kind = Approximation.parse(str(tree.attrs["kind"]))
    if kind.tempering != 1.0:  # to all digits
        kind = kind.with_fields(tempering=attrs.get("tempering", kind.tempering))
    return {
        "mean": _join(constant, "speech_mean"),
        "variance": constant["speech_variance"].values,
        "mixture": _join(observed, "mixture"),
        "speech": arrays.pop("speech", no_waves),
        "latents": arrays,
        "n_samples": tuple(int(n) for n in constant["n_samples"].values),
        "stft": Stft(**json.loads(tree.attrs["stft"])),
        "kind": kind,
        "attrs": attrs,
        "fit": fit,
        "trace": trace,
        "stats": stats,
        "axes": {name: _axes(name, value) for name, value in latents.items()},
    }


def _names(site: str, axes: Axes) -> list[str]:
    """Dimension names of a latent: those of the grid, or its own."""
    own = [name if name.isidentifier() else f"dim_{axis}" for axis, name in enumerate(axes)]
    return [_GRID_NAMES.get(name, f"{site}.{name}") for name in own]


def _axes(site: str, value: Any) -> Axes:
    """Undo `_names`."""
    known = {shown: name for name, shown in _GRID_NAMES.items()}
    shown = [str(dim) for dim in value.dims[3:]]
    own = [dim.removeprefix(f"{site}.") for dim in shown]
    return tuple(
        known.get(dim, "" if name == f"dim_{axis}" else name)
        for axis, (dim, name) in enumerate(zip(shown, own, strict=True))
    )


def _split(name: str, values: np.ndarray) -> dict[str, np.ndarray]:
    return {f"{name}_re": np.real(values), f"{name}_im": np.imag(values)}


def _join(group: Any, name: str) -> np.ndarray:
    real, imaginary = group[f"{name}_re"].values, group[f"{name}_im"].values
    values = np.empty(real.shape, np.result_type(real, imaginary, np.complex64))
    values.real, values.imag = real, imaginary
    return values


def _grid_dataset(arrays: dict[str, np.ndarray], coords: dict[str, np.ndarray]) -> xarray.Dataset:
    import xarray

    return xarray.Dataset({key: (_GRID, value) for key, value in arrays.items()}, coords)
