"""The log joint density of a scene on JAX: the twin of `avse_ppl.inference.core.log_density`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch
from numpyro.distributions import biject_to
from numpyro.primitives import Messenger

from avse_ppl.distributions.backend import numpyro_backend
from avse_ppl.inference.core.log_density import LogDensity
from avse_ppl.models.scene import Laws, Scene
from avse_ppl.models.validation import name_of
from avse_ppl.signal.stft import Frames

Latents = dict[str, jax.Array]
_TOLERANCE = 1e-3  # of the log density, between torch and JAX in single precision
_PORT = (
    "write the model with pyroapi instead, which runs on both: replace 'import pyro' and "
    "'import pyro.distributions as dist' by\n"
    "    from pyroapi import distributions as dist\n"
    "    from pyroapi import ops, pyro\n"
    "and torch.exp, torch.log, ... by ops.exp, ops.log, ...; or use inference='nuts', which runs "
    "it as it is"
)


class Recording(NamedTuple):
    """What is known of one recording: arguments of compiled programs, which many recordings share.

    Parameters
    ----------
    values, mask
        Its STFT ``(1, freq, time)``, and which frames are observed, ``(1, 1, time)``.
    visual
        What is seen, ``(1, 1 + feature, time)``; None without video.
    """

    values: jax.Array
    mask: jax.Array
    visual: jax.Array | None = None


@dataclass(frozen=True)
class JaxDensity:
    r"""Log joint density of one recording's latents u on the real line and its mixture.

    .. math:: w \log p(x | \theta(u)) + \log p(\theta(u)) + \log |\partial \theta / \partial u|

    Parameters
    ----------
    scene
        Its models are written with pyroapi.
    frames
        The grid, for JAX, without what is seen: that comes with each recording.
    sites
        Names of the latents that torch found.
    """

    scene: Scene
    frames: Frames
    sites: frozenset[str]

    def __call__(
        self, latents: Mapping[str, jax.Array], of: Recording, tempering: float = 1.0
    ) -> jax.Array:
        """Log density at unconstrained ``(1, ...)`` latents."""
        likelihood, prior = self.parts(latents, of)
        return tempering * likelihood + prior

    def parts(self, latents: Mapping[str, jax.Array], of: Recording) -> tuple[jax.Array, jax.Array]:
        """Log likelihood, and log prior with the Jacobian."""
        score, _ = self._run(latents, of)
        _check_sites(self.scene, self.sites, score.found)
        return score.likelihood, score.prior

    def mixture_power(self, latents: Mapping[str, jax.Array], of: Recording) -> jax.Array:
        """Power of the mixture under the scene, ``(1, freq, time)``."""
        power: Any = self._run(latents, of)[1].mixture.power
        return jnp.broadcast_to(power, of.values.shape)

    def _run(self, latents: Mapping[str, jax.Array], of: Recording) -> tuple[_Score, Laws]:
        score = _Score(latents)
        frames = replace(self.frames, visual=of.visual)
        values: Any = of.values
        mask: Any = of.mask
        with numpyro_backend(), score:
            return score, self.scene.observe(frames, values, mask)


def jax_density(density: LogDensity) -> JaxDensity:
    """Density of the same scene on JAX, checked against torch's where inference starts.

    Raises
    ------
    ValueError
        If a model is written for torch only, or gives another density on JAX.
    NotImplementedError
        If a prior has no decoder on JAX.
    """
    mixture = density.mixture
    kind: Any = jnp.float64 if mixture.scale.dtype == torch.float64 else jnp.float32
    frames = replace(mixture.frames, device=None, dtype=kind, visual=None)  # type: ignore[arg-type]
    made = JaxDensity(density.scene, frames, frozenset(site.name for site in density.sites))
    _check_parity(density, made)
    return made


def observed(density: LogDensity) -> list[Recording]:
    """What is known of each recording."""
    mixture = density.mixture
    mask, visual = mixture.mask, mixture.frames.visual
    if mask is None:
        mask = torch.ones(mixture.recordings, 1, mixture.frames.time, dtype=torch.bool)
    arrays = [None if array is None else to_jax(array) for array in (mixture.values, mask, visual)]
    rows = range(mixture.recordings)
    return [Recording(*(a if a is None else a[r : r + 1] for a in arrays)) for r in rows]  # type: ignore[arg-type]


def to_jax(value: torch.Tensor) -> jax.Array:
    """Copy a tensor."""
    return jnp.asarray(value.detach().cpu().numpy())


def _check_parity(density: LogDensity, made: JaxDensity) -> None:
    start = {site.name: site.start for site in density.sites}
    with torch.no_grad():
        expected = density(start)[0].item()
    recording = observed(density)[0]
    try:
        first = {name: to_jax(value[:1]) for name, value in start.items()}
        found = float(jax.jit(made)(first, recording))
    except (NotImplementedError, _NotPorted) as error:
        raise error.with_traceback(None) from None
    except Exception as error:
        text = " ".join(str(error).split())[:160]
        raise ValueError(_not_ported(made.scene, f"{type(error).__name__}: {text}")) from error
    if not np.isclose(found, expected, rtol=_TOLERANCE):
        raise ValueError(
            f"the scene has log density {expected:.6g} on torch and {found:.6g} on JAX at the same "
            "latents. A model that draws random numbers or keeps a state of its own can do that; "
            f"otherwise {_PORT}"
        )


class _NotPorted(ValueError):
    """A model that NumPyro does not see the latents of."""


def _check_sites(scene: Scene, expected: frozenset[str], found: set[str]) -> None:
    if expected != found:
        missing = ", ".join(sorted(expected - found)) or "none"
        raise _NotPorted(_not_ported(scene, f"NumPyro does not see its latents {missing}"))


def _not_ported(scene: Scene, reason: str) -> str:
    return (
        f"speech prior {name_of(scene.speech)!r} with noise model {name_of(scene.noise)!r} does "
        f"not run on NumPyro ({reason}). If a model of yours says 'import pyro', {_PORT}"
    )


class _Score(Messenger):
    """Puts latents in at the sample sites, and adds up log densities."""

    def __init__(self, latents: Mapping[str, jax.Array]) -> None:
        super().__init__()
        self.latents = latents
        self.prior: Any = 0.0
        self.likelihood: Any = 0.0
        self.found: set[str] = set()

    def process_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] != "sample" or msg["name"] not in self.latents:
            return
        transform: Callable[..., Any] = biject_to(msg["fn"].support)
        u = self.latents[msg["name"]]
        msg["value"] = transform(u)
        self.found.add(msg["name"])
        jacobian = transform.log_abs_det_jacobian(u, msg["value"])  # type: ignore[attr-defined]
        self.prior = self.prior + jnp.sum(jacobian)

    def postprocess_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] != "sample":
            return
        total = jnp.sum(msg["fn"].log_prob(msg["value"]))
        if msg["is_observed"]:
            self.likelihood = self.likelihood + total
        else:
            self.prior = self.prior + total
