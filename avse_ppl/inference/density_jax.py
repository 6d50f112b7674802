"""The log joint density of a scene on JAX: the twin of `avse_ppl.inference.density`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from numpyro.distributions import biject_to
from numpyro.primitives import Messenger

from avse_ppl.backends import numpyro_backend
from avse_ppl.checks import name_of
from avse_ppl.inference.density import Density
from avse_ppl.scene import Laws, Scene
from avse_ppl.stft import Frames

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


@dataclass(frozen=True)
class JaxDensity:
    r"""Log joint density of one recording's latents u on the real line and its mixture.

    .. math:: w \log p(x | \theta(u)) + \log p(\theta(u)) + \log |\partial \theta / \partial u|

    Parameters
    ----------
    scene
        Its models are written with pyroapi.
    frames
        The grid, for JAX.
    sites
        Names of the latents that torch found.
    seen
        Tells one recording's lips, which are constants of the grid, from another's.
    """

    scene: Scene
    frames: Frames
    sites: frozenset[str]
    seen: bytes = b""

    def __call__(
        self, latents: Mapping[str, jax.Array], values: Any, mask: Any, tempering: float = 1.0
    ) -> jax.Array:
        """Log density at unconstrained ``(1, ...)`` latents."""
        likelihood, prior = self.parts(latents, values, mask)
        return tempering * likelihood + prior

    def parts(
        self, latents: Mapping[str, jax.Array], values: Any, mask: Any
    ) -> tuple[jax.Array, jax.Array]:
        """Log likelihood, and log prior with the Jacobian."""
        score, _ = self._run(latents, values, mask)
        _check_sites(self.scene, self.sites, score.found)
        return score.likelihood, score.prior

    def mixture_power(self, latents: Mapping[str, jax.Array], values: Any, mask: Any) -> jax.Array:
        """Power of the mixture under the scene, ``(1, freq, time)``."""
        power: Any = self._run(latents, values, mask)[1].mixture.power
        return jnp.broadcast_to(power, values.shape)

    def _run(self, latents: Mapping[str, jax.Array], values: Any, mask: Any) -> tuple[_Score, Laws]:
        score = _Score(latents)
        with numpyro_backend(), score:
            return score, self.scene.observe(self.frames, values, mask)


def jax_density(density: Density) -> JaxDensity:
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
    visual = mixture.frames.of_one().visual
    seen = b"" if visual is None else sha256(visual.cpu().numpy().tobytes()).digest()
    visual = None if visual is None else to_jax(visual)
    frames = replace(mixture.frames, device=None, dtype=kind, visual=visual)  # type: ignore[arg-type]
    made = JaxDensity(density.scene, frames, frozenset(site.name for site in density.sites), seen)
    _check_parity(density, made)
    return made


def observed(density: Density) -> tuple[jax.Array, jax.Array]:
    """Values and mask of all recordings, ``(recording, 1, freq, time)`` and ``(., 1, 1, time)``."""
    mixture = density.mixture
    mask = mixture.mask
    if mask is None:
        mask = torch.ones(mixture.recordings, 1, mixture.frames.time, dtype=torch.bool)
    return to_jax(mixture.values)[:, None], to_jax(mask)[:, None]


def to_jax(value: torch.Tensor) -> jax.Array:
    """Copy a tensor."""
    return jnp.asarray(value.detach().cpu().numpy())


def _check_parity(density: Density, made: JaxDensity) -> None:
    start = {site.name: site.start for site in density.sites}
    with torch.no_grad():
        expected = density(start)[0].item()
    values, mask = observed(density)
    try:
        first = {name: to_jax(value[:1]) for name, value in start.items()}
        found = float(jax.jit(made)(first, values[0], mask[0]))
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
