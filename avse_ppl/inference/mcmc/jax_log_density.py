"""Log joint density of a scene on JAX, the counterpart of `avse_ppl.inference.core.log_density`."""

from __future__ import annotations

import os
import time
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
from avse_ppl.models.handlers import LIKELIHOOD
from avse_ppl.models.protocols import name_of
from avse_ppl.models.scene import Laws, Scene
from avse_ppl.signal.stft import Frames

# A pool of one thread for what XLA runs inside a program: LAPACK on batches waits for other threads
# of the pool that it runs in, so that as many of them at once as there are threads wait without
# end. Read when JAX is first used; chains still run side by side.
os.environ.setdefault("PJRT_NPROC", "1")

Latents = dict[str, jax.Array]
_TOLERANCE = 1e-3  # of the log density, between torch and JAX in single precision
_PORT = (
    "write the model with pyroapi instead, which runs on both: replace 'import pyro' and "
    "'import pyro.distributions as dist' by\n"
    "    from pyroapi import distributions as dist\n"
    "    from pyroapi import ops, pyro\n"
    "and torch.exp, torch.log, ... by ops.exp, ops.log, ...; or use the method 'nuts', which runs "
    "it as it is"
)


class Recording(NamedTuple):
    """Observations of one recording, arguments of programs compiled for all of its length.

    Parameters
    ----------
    values, mask
        Its STFT ``(1, freq, time)``, and which frames are observed, ``(1, 1, time)``.
    visual
        Visual features, ``(1, 1 + feature, time)``; None without video.
    encoded
        What the encoder measured, ``(1, 2 latent, time)``; None without.
    predicted
        What a predictor made of it, ``(1, 4, freq, time)``; None without.
    """

    values: jax.Array
    mask: jax.Array
    visual: jax.Array | None = None
    encoded: jax.Array | None = None
    predicted: jax.Array | None = None


class JaxJoint(NamedTuple):
    """Log densities of one recording and the distributions that they came from."""

    prior: jax.Array
    likelihood: jax.Array
    laws: Laws


@dataclass(frozen=True)
class JaxLogDensity:
    r"""Log joint density of one recording's latents u on the real line and its mixture.

    .. math:: w \log p(x | \theta(u)) + \log p(\theta(u)) + \log |\partial \theta / \partial u|

    Parameters
    ----------
    scene
        Its models are written with pyroapi.
    frames
        The grid, for JAX, without visual features: those come with each recording.
    sites
        Names of the latents that torch found.
    """

    scene: Scene
    frames: Frames
    sites: frozenset[str]

    def __call__(
        self, latents: Mapping[str, jax.Array], recording: Recording, tempering: float = 1.0
    ) -> jax.Array:
        """Log density at unconstrained ``(1, ...)`` latents."""
        joint = self.joint(latents, recording)
        return tempering * joint.likelihood + joint.prior

    def joint(self, latents: Mapping[str, jax.Array], recording: Recording) -> JaxJoint:
        """Log prior, with the Jacobian, and log likelihood.

        Raises
        ------
        ValueError
            If NumPyro does not see the latents that torch found.
        """
        handler = SubstituteMessenger(latents)
        frames = replace(
            self.frames, visual=recording.visual, encoded=recording.encoded,
            predicted=recording.predicted,
        )  # fmt: skip
        values: Any = recording.values
        mask: Any = recording.mask
        with numpyro_backend(), handler:
            laws = self.scene.observe(frames, values, mask)
        if handler.sampled != self.sites:
            missing = ", ".join(sorted(self.sites - handler.sampled)) or "none"
            raise NotPortedError(self.scene, f"NumPyro does not see its latents {missing}")
        return JaxJoint(handler.prior, handler.likelihood, laws)

    def mixture_power(self, latents: Mapping[str, jax.Array], recording: Recording) -> jax.Array:
        """Power of the mixture under the scene, ``(1, freq, time)``."""
        power: Any = self.joint(latents, recording).laws.mixture.power
        return jnp.broadcast_to(power, recording.values.shape)


def make_jax_log_density(density: LogDensity) -> JaxLogDensity:
    """Log density of the same scene on JAX, checked against torch's at the median of the prior.

    Raises
    ------
    ValueError
        If a model is written for torch only, or has another density on JAX.
    NotImplementedError
        If a prior has no decoder on JAX.
    """
    mixture = density.mixture
    kind: Any = jnp.float64 if mixture.scale.dtype == torch.float64 else jnp.float32
    bare: Any = {"device": None, "dtype": kind, "visual": None, "encoded": None, "predicted": None}
    frames = replace(mixture.frames, **bare)
    made = JaxLogDensity(density.scene, frames, frozenset(site.name for site in density.sites))

    # Both are computed once, for the first recording.
    medians = {site.name: site.start for site in density.sites}
    with torch.no_grad():
        expected = density(medians)[0].item()
    try:
        latents = {name: to_jax(value[:1]) for name, value in medians.items()}
        found = float(jax.jit(made)(latents, list_recordings(density)[0]))
    except (NotImplementedError, NotPortedError) as error:
        raise error.with_traceback(None) from None
    except Exception as error:
        text = " ".join(str(error).split())[:160]
        raise NotPortedError(made.scene, f"{type(error).__name__}: {text}") from error
    if not np.isclose(found, expected, rtol=_TOLERANCE):
        raise ValueError(
            f"the scene has log density {expected:.6g} on torch and {found:.6g} on JAX at the same "
            "latents. A model that draws random numbers or keeps a state of its own can do that; "
            f"otherwise {_PORT}"
        )
    return made


def list_recordings(density: LogDensity) -> list[Recording]:
    """What is observed of each recording, as arrays of JAX."""
    mixture = density.mixture
    mask, visual = mixture.mask, mixture.frames.visual
    if mask is None:
        mask = torch.ones(mixture.recordings, 1, mixture.frames.time, dtype=torch.bool)
    observed = (mixture.values, mask, visual, mixture.frames.encoded, mixture.frames.predicted)
    arrays = [None if array is None else to_jax(array) for array in observed]
    rows = range(mixture.recordings)
    return [Recording(*(a if a is None else a[r : r + 1] for a in arrays)) for r in rows]  # type: ignore[arg-type]


def to_jax(value: torch.Tensor) -> jax.Array:
    """Copy a tensor."""
    return jnp.asarray(value.detach().cpu().numpy())


class NotPortedError(ValueError):
    """A model of the scene runs on torch only; says how to port it."""

    def __init__(self, scene: Scene, reason: str) -> None:
        speech, noise = name_of(scene.speech), name_of(scene.noise)
        super().__init__(
            f"speech prior {speech!r} with noise model {noise!r} does not run on NumPyro "
            f"({reason}). If a model of yours says 'import pyro', {_PORT}"
        )


class SubstituteMessenger(Messenger):
    """Substitutes latents at the sample sites, and adds up log densities."""

    def __init__(self, latents: Mapping[str, jax.Array]) -> None:
        super().__init__()
        self.latents = latents
        self.prior: Any = 0.0
        self.likelihood: Any = 0.0
        self.sampled: set[str] = set()

    def process_message(self, msg: dict[str, Any]) -> None:
        """Transform the latent of a site to its support, and count the Jacobian."""
        if msg["type"] != "sample" or msg["name"] not in self.latents or msg["is_observed"]:
            return
        transform: Callable[..., Any] = biject_to(msg["fn"].support)
        u = self.latents[msg["name"]]
        msg["value"] = transform(u)
        self.sampled.add(msg["name"])
        jacobian = transform.log_abs_det_jacobian(u, msg["value"])  # type: ignore[attr-defined]
        self.prior = self.prior + jnp.sum(jacobian)

    def postprocess_message(self, msg: dict[str, Any]) -> None:
        """Add the log density of a site to that of the prior or to the likelihood."""
        if msg["type"] != "sample":
            return
        terms = msg["fn"].log_prob(msg["value"])
        total = jnp.sum(terms if msg["scale"] is None else msg["scale"] * terms)
        if msg["name"] in LIKELIHOOD:
            self.likelihood = self.likelihood + total
        else:
            self.prior = self.prior + total


def time_gradient(
    density: LogDensity, point: Mapping[str, torch.Tensor], tempering: float = 1.0
) -> float:
    """Seconds of a compiled gradient of the log density of one recording, the best of three.

    Parameters
    ----------
    density
        Of one recording.
    point
        Latents on the real line, where it is taken.
    tempering
        Power of the likelihood.
    """
    compiled, recording = make_jax_log_density(density), list_recordings(density)[0]
    gradient = jax.jit(
        jax.grad(lambda latents: compiled(latents, recording, tempering)),
        compiler_options={"xla_cpu_multi_thread_eigen": False},
    )
    latents = {name: to_jax(value) for name, value in point.items()}
    jax.block_until_ready(gradient(latents))  # compiles
    seconds = []
    for _ in range(3):
        begin = time.perf_counter()
        jax.block_until_ready(gradient(latents))
        seconds.append(time.perf_counter() - begin)
    return min(seconds)
