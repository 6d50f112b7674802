"""NetCDF files of a posterior, and its labelled datasets."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from avse_ppl.posterior.approximation import Approximation
from avse_ppl.posterior.fit_info import fit_from_attrs, fit_to_attrs
from avse_ppl.signal.stft import Stft

if TYPE_CHECKING:
    import xarray

    from avse_ppl.posterior.posterior import Axes, Posterior

_FORMAT = 1
_GRID = ("recording", "freq_hz", "time_s")
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


def attributes(posterior: Posterior) -> dict[str, Any]:
    """Attributes of the file: kind, format, front end, settings and facts about the fit."""
    return {
        "kind": str(posterior.kind),
        "avse_ppl_format": _FORMAT,
        "stft": json.dumps(asdict(posterior.stft)),
        "settings": json.dumps({**posterior.attrs, **fit_to_attrs(posterior.fit)}, default=str),
    }


def read(path: Path) -> dict[str, Any]:
    """Arguments of the `Posterior` that a file holds; see ``Posterior.load``."""
    import xarray

    if not path.is_file():
        raise FileNotFoundError(f"no posterior at {path}")
    try:
        with xarray.open_datatree(path, engine="h5netcdf") as tree:
            tree.load()
        if tree.attrs["avse_ppl_format"] != _FORMAT:
            raise KeyError("avse_ppl_format")
        return _arguments(tree)
    except (OSError, KeyError, ValueError) as error:
        raise ValueError(
            f"{path} is not a posterior saved by this library ({error}); expected a NetCDF file "
            "written by Posterior.save or 'avse-ppl enhance --posterior'"
        ) from None


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
    return group[f"{name}_re"].values + 1j * group[f"{name}_im"].values


def _grid_dataset(arrays: dict[str, np.ndarray], coords: dict[str, np.ndarray]) -> xarray.Dataset:
    import xarray

    return xarray.Dataset({key: (_GRID, value) for key, value in arrays.items()}, coords)
