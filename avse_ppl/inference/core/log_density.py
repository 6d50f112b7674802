"""Log joint density of a scene on the real line, per recording."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyro
import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import biject_to

from avse_ppl.distributions.complex_normal import ComplexNormal
from avse_ppl.models.handlers import LogProbByRecording, is_deterministic, recording_plate
from avse_ppl.models.scene import Laws, Scene
from avse_ppl.models.validation import check_scene
from avse_ppl.signal.stft import Spectrogram

Values = dict[str, Tensor]
_PRIOR_DRAWS = 31


@dataclass(frozen=True)
class Site:
    """One latent: shape ``(recording, ...)`` on the real line, and the transform to its support.

    ``start`` and ``spread`` are the median and the standard deviation of its prior there.
    """

    name: str
    shape: torch.Size
    transform: Any  # torch's Transform, whose calls are not typed
    start: Tensor
    spread: Tensor
    of_noise: bool


class Joint(NamedTuple):
    """Log densities ``(recording,)`` and the laws they came from."""

    prior: Tensor
    likelihood: Tensor
    laws: Laws


class LogDensity:
    r"""Log joint density of the latents u on the real line and the mixture x, per recording.

    .. math:: \log p(x | \theta(u)) + \log p(\theta(u)) + \log |\partial \theta / \partial u|

    Parameters
    ----------
    scene, mixture
        The program and what it observed; checked once, with one trace.

    Attributes
    ----------
    sites
        The latents.
    evidence
        Sites beside the mixture whose density counts although they are no latents: observations
        and factors of the models. True where the noise model has them, False for the speech prior.
    """

    sites: list[Site]
    evidence: dict[str, bool]

    def __init__(self, scene: Scene, mixture: Spectrogram) -> None:
        """Trace the scene and list its latents."""
        self.scene, self.mixture = scene, mixture
        check_scene(scene, mixture)
        self.sites, self.evidence = list_sites(scene, mixture)

    def constrain(self, unconstrained: Mapping[str, Tensor]) -> tuple[Values, Tensor]:
        """Values on their supports, and the log Jacobian ``(recording,)``.

        Sites that are not given are left out.
        """
        values: Values = {}
        log_jacobian = self.mixture.scale.new_zeros(self.mixture.recordings)
        for site in self.sites:
            if site.name not in unconstrained:
                continue
            u = unconstrained[site.name]
            values[site.name] = site.transform(u)
            if site.transform != torch.distributions.transforms.identity_transform:
                terms = site.transform.log_abs_det_jacobian(u, values[site.name])
                log_jacobian = log_jacobian + terms.flatten(1).sum(1)
        return values, log_jacobian

    def unconstrain(self, values: Mapping[str, Tensor]) -> Values:
        """Inverse of ``constrain`` for the sites named in ``values``."""
        known = {site.name: site.transform for site in self.sites}
        return {name: known[name].inv(value) for name, value in values.items()}

    def joint(self, values: Mapping[str, Tensor]) -> Joint:
        """Log prior and log likelihood at given values, per recording."""
        with (
            LogProbByRecording(values, self.mixture.recordings) as log_prob,
            pyro.validation_enabled(False),
        ):
            laws = self.scene(self.mixture)
        log_prob.check_complete()
        return Joint(log_prob.prior, log_prob.likelihood, laws)

    def __call__(self, unconstrained: Mapping[str, Tensor], tempering: float = 1.0) -> Tensor:
        """Log joint density on the real line, ``(recording,)``, likelihood to a power."""
        values, log_jacobian = self.constrain(unconstrained)
        joint = self.joint(values)
        return tempering * joint.likelihood + joint.prior + log_jacobian

    def names(self, of_noise: bool) -> list[str]:
        """Names of the latents of the noise model, or of the speech prior."""
        return [site.name for site in self.sites if site.of_noise is of_noise]


def noise_log_prior(
    density: LogDensity, values: Mapping[str, Tensor]
) -> tuple[Tensor, ComplexNormal]:
    """Log prior ``(recording,)`` of the noise latents, and the law of the noise."""
    mixture = density.mixture
    with (
        LogProbByRecording(values, mixture.recordings) as log_prob,
        recording_plate(mixture.recordings, device=mixture.scale.device, validated=False),
    ):
        law = density.scene.noise(mixture.frames)
    return log_prob.prior, law


def site_distribution(density: LogDensity, name: str, values: Mapping[str, Tensor]) -> Any:
    """Prior distribution of one latent, others given."""
    recordings = density.mixture.recordings
    with (
        poutine.trace() as tracer,
        poutine.block(expose=[name]),
        poutine.condition(data=dict(values)),
        recording_plate(recordings),
    ):
        density.scene.laws(density.mixture.frames)
    node: Any = tracer.trace.nodes[name]
    return node["fn"]


class _Prior(Messenger):
    """Substitutes the median of its prior at each latent, and records it."""

    def __init__(self, recordings: int) -> None:
        super().__init__()
        self.recordings, self.found = recordings, []
        self.evidence: list[str] = []

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if msg["is_observed"]:
            if not is_deterministic(msg):
                self.evidence.append(msg["name"])
            return
        transform = biject_to(msg["fn"].support)
        draws: Tensor = transform.inv(msg["fn"].sample((_PRIOR_DRAWS,)))  # type: ignore[attr-defined]
        start, spread = draws.median(0).values, draws.std(0)
        msg["value"], msg["done"] = transform(start), True
        shape = (self.recordings, *start.shape[1:])
        self.found.append((msg["name"], transform, start.expand(shape), spread.expand(shape)))


def list_sites(scene: Scene, mixture: Spectrogram) -> tuple[list[Site], dict[str, bool]]:
    """Latents of a scene, speech first; its evidence, see `LogDensity`.

    Their starts are found for one recording with a seed of their own, so that neither the batch
    nor the global random numbers play a part.
    """
    device = mixture.scale.device
    frames = mixture.frames.take_first()
    both, noise = _Prior(mixture.recordings), _Prior(mixture.recordings)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), torch.no_grad():
        torch.manual_seed(0)
        with both, recording_plate(1):
            scene.laws(frames)
        with noise, recording_plate(1, device=device):
            scene.noise(frames)
    of_noise = {name for name, *_ in noise.found}
    sites = [
        Site(name, start.shape, transform, start.clone(), spread.clone(), name in of_noise)
        for name, transform, start, spread in both.found
    ]
    return sites, {name: name in noise.evidence for name in both.evidence}
