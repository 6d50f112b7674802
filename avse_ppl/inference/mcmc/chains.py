"""What all routines that run Markov chains share: starts, and draws made into a posterior."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor

from avse_ppl.inference.core.build_posterior import build_from_parts
from avse_ppl.inference.core.convergence import assess_chains
from avse_ppl.inference.core.log_density import LogDensity, Values
from avse_ppl.inference.core.setup import RandomStreams
from avse_ppl.models.scene import Scene
from avse_ppl.posterior.fit_info import fit_to_attrs
from avse_ppl.posterior.posterior import Posterior
from avse_ppl.signal.stft import Spectrogram

Stats = dict[str, np.ndarray]


def stream_of(randoms: RandomStreams, recording: int) -> RandomStreams:
    """Randomness of one recording of a batch; drawing from it moves the batch's on."""
    one = copy(randoms)
    one.generators = [randoms.generators[recording]]
    return one


def dispersed_starts(
    density: LogDensity,
    randoms: RandomStreams,
    chains: int,
    fit: tuple[Values, Values] | None = None,
) -> list[Values]:
    """Unconstrained values that each chain starts from, ``(recording, ...)`` each.

    Parameters
    ----------
    density
        Whose latents they are.
    randoms
        One generator for each recording.
    chains
        How many.
    fit
        Location and log standard deviation of a fitted mean-field guide, whose draws they are; by
        default draws of the prior, as a normal law on the real line.
    """
    location, log_sd = fit or prior_guide(density)
    return [
        {
            name: mean.detach()
            + log_sd[name].detach().exp() * randoms.normal(mean.shape, mean.dtype)
            for name, mean in location.items()
        }
        for _ in range(chains)
    ]


def prior_guide(density: LogDensity) -> tuple[Values, Values]:
    """Median and log standard deviation of the priors on the real line, as if none depended."""
    location = {site.name: site.start.clone() for site in density.sites}
    return location, {site.name: site.spread.clamp_min(1e-3).log() for site in density.sites}


def check_start(density: LogDensity, start: Mapping[str, Tensor], tempering: float = 1.0) -> None:
    """Raise unless the log density and its gradient are finite where a chain starts.

    Raises
    ------
    ValueError
        If one is not: no step can be taken from there.
    """
    point = {name: value.detach().clone().requires_grad_() for name, value in start.items()}
    log_p = density(point, tempering).sum()
    wrong = (
        [] if bool(torch.isfinite(log_p)) else [f"the log density is {float(log_p.detach()):.3g}"]
    )
    if point and not wrong:
        gradients = torch.autograd.grad(log_p, list(point.values()), allow_unused=True)
        wrong = [
            f"its gradient in {name!r} is not finite"
            for name, gradient in zip(point, gradients, strict=True)
            if gradient is not None and not bool(torch.isfinite(gradient).all())
        ]
    if wrong:
        raise ValueError(
            f"a chain cannot start: {wrong[0]} at a draw of its start. Expected a finite number; "
            "add a small floor to powers, use priors with lighter tails, or dtype=torch.float64"
        )


def complete_chains(lengths: Sequence[Sequence[int]]) -> tuple[int, int]:
    """How many chains and draws of each to keep where a run was interrupted.

    Parameters
    ----------
    lengths
        Draws that there are, for each recording and each of its chains.

    Returns
    -------
    tuple
        First chains and first draws that every recording has, as many draws in all as can be;
        ``(0, 0)`` if there are none.

    Examples
    --------
    >>> (
    ...     complete_chains([[250, 250, 200, 0]]),
    ...     complete_chains([[250, 3]]),
    ...     complete_chains([[250], []]),
    ... )
    ((3, 200), (1, 250), (0, 0))
    """
    chains = min(len(row) for row in lengths)
    options = [(c, min(min(row[:c]) for row in lengths)) for c in range(1, chains + 1)]
    best = max(options, key=lambda option: option[0] * option[1], default=(0, 0))
    return best if best[0] * best[1] else (0, 0)


def stack_chains(chains: Sequence[Sequence[Values]]) -> Values:
    """Chains of draws, ``(recording, ...)`` each, as arrays ``(chain, draw, recording, ...)``.

    Raises
    ------
    ValueError
        If there are no draws, or the chains are not equally long.
    """
    lengths = [len(chain) for chain in chains]
    if not lengths or not min(lengths):
        raise ValueError(f"expected at least one draw of each chain, found {lengths}")
    if len(set(lengths)) > 1:
        raise ValueError(
            f"chains must be equally long, found {lengths} draws; cut them to the first "
            f"{min(lengths)} of each, or leave the short ones out"
        )
    return {
        name: torch.stack([torch.stack([draw[name] for draw in chain]) for chain in chains])
        for name in chains[0][0]
    }


def build_chain_posterior(
    scene: Scene,
    spectrogram: Spectrogram,
    density: LogDensity,
    unconstrained: Mapping[str, Tensor],
    randoms: RandomStreams,
    *,
    kind: str,
    attrs: dict[str, Any],
    stats: Stats | None = None,
    waveforms: bool | int = True,
) -> Posterior:
    """Posterior over speech from chains of draws on the real line.

    Parameters
    ----------
    scene, spectrogram, density
        What was inverted.
    unconstrained
        Draws of all latents, ``(chain, draw, recording, ...)`` each; empty for a scene without.
    randoms
        For the speech draws.
    kind, attrs
        Stored in the posterior.
    stats
        Of each draw, ``(chain, draw, recording)`` each; see `Posterior`.
    waveforms
        True for a waveform with each draw, False for none, or how many in all: spread evenly over
        the chains, rounded up to the same number in each.

    Returns
    -------
    Posterior
        With ``attrs["warnings"]``, a list of texts for each recording, empty where the chains give
        no reason for one, and ``attrs["diagnostics"]``, the figures of each recording that they are
        about; see `avse_ppl.evaluation.diagnostics.chain_figures`.

    Raises
    ------
    ValueError
        If the arrays are not of the same number of chains and draws, or a draw is not finite.
    """
    stats = stats or {}
    chains, length = _chains_and_draws({**unconstrained, **stats})
    with torch.no_grad():
        draws = [
            density.constrain({name: value[c, d] for name, value in unconstrained.items()})[0]
            for c in range(chains)
            for d in range(length)
        ]
    _check_draws(draws)
    found = add_chain_diagnostics(scene, spectrogram, draws, stats, chains)
    before = attrs.get("warnings") or [[]] * spectrogram.recordings
    rows = [[*old, *new] for old, new in zip(before, found["warnings"], strict=True)]
    return build_from_parts(
        scene, spectrogram, draws, randoms, kind=kind,
        attrs={**attrs, **found, "warnings": rows}, chains=chains, stats=stats,
        waveforms=waveforms_of(waveforms, chains, length),
    )  # fmt: skip


def waveforms_of(waveforms: bool | int, chains: int, length: int) -> int:
    """Waveforms of each chain.

    Examples
    --------
    >>> [waveforms_of(how, chains=4, length=250) for how in (True, False, 50, 5000)]
    [250, 0, 13, 1250]
    """
    if isinstance(waveforms, bool):
        return length if waveforms else 0
    return -(-waveforms // chains)


def add_chain_diagnostics(
    scene: Scene, spectrogram: Spectrogram, draws: Sequence[Values], stats: Stats, chains: int
) -> dict[str, list[Any]]:
    """What the chains of each recording say against themselves: ``attrs`` of a posterior.

    ``"warnings"`` in words, ``"diagnostics"`` in figures; of a scene without latents no figures.

    Judged are the powers of speech and noise, and not the latents behind them, which may be
    exchanged for each other; see `avse_ppl.evaluation.diagnostics`.
    """
    return fit_to_attrs(assess_chains(scene, spectrogram, draws, stats, chains))


def _chains_and_draws(arrays: Mapping[str, Any]) -> tuple[int, int]:
    """Leading sizes that all arrays have in common."""
    found = {name: tuple(value.shape[:2]) for name, value in arrays.items()}
    if len(set(found.values())) > 1:
        listed = ", ".join(f"{name} {shape}" for name, shape in found.items())
        raise ValueError(
            f"expected the same number of chains and draws in every array, found {listed}; cut "
            "the chains to a common length"
        )
    return next(iter(found.values()), (1, 1))


def _check_draws(draws: Sequence[Values]) -> None:
    """Raise if a draw has left the range of numbers."""
    for draw in draws:
        for name, value in draw.items():
            if not bool(torch.isfinite(value).all()):
                raise ValueError(
                    f"a chain drew NaN or infinity for {name!r}: its posterior has no bound, or "
                    "tails beyond the range of numbers. Give it a prior with lighter tails and "
                    "the power a floor"
                )
