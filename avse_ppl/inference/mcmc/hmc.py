"""Hamiltonian Monte Carlo over all latents, by Pyro's kernels."""

from __future__ import annotations

from dataclasses import dataclass

from pyro.infer import mcmc

from avse_ppl.inference.mcmc.hamiltonian import HamiltonianMonteCarlo
from avse_ppl.inference.mcmc.pyro_kernels import HmcKernel, NutsKernel, Potential
from avse_ppl.models.validation import check_count


@dataclass(frozen=True)
class NUTS(HamiltonianMonteCarlo):
    r"""No-U-Turn sampler over all latents, on the real line.

    Draws from the posterior itself, not from an approximation of it: trajectories of a particle
    with potential :math:`-\log p(x, u)`, each as long as it does not turn back. The step size and,
    in a warm-up of 150 draws or more, a diagonal mass matrix are found in the warm-up. What is left
    to doubt is whether the chains are long enough, which ``posterior.warnings`` says.

    Chains are run one by one, and recordings too: a batch is the same as a loop.

    Parameters
    ----------
    draws
        Draws of each chain, after the warm-up.
    warmup
        Draws of each chain that are thrown away.
    chains
        Chains, from different starts. Fewer than two cannot be compared.
    target_acceptance
        What the step size is adapted to, between 0 and 1; higher means smaller steps and fewer
        divergences.
    start
        ``"svi"``: draws of a fitted mean-field guide, ``"prior"``: draws of the prior; the
        variances of either are the first inverse mass matrix.
    start_steps
        At most this many steps of that fit.
    waveforms
        True for a waveform with each draw, False for none, or how many in all.
    tempering
        Power of the likelihood; anything but 1 is flagged in ``posterior.kind``.
    device, dtype
        As for `SVI`. Of long recordings (over a minute or so) the log density is too large a number
        for steps to be accepted in single precision: use ``torch.float64``.
    progress
        Called with (draw, draws) after each draw of each chain and recording, warm-up included.
    max_tree_depth
        A trajectory has at most ``2 ** max_tree_depth`` gradient steps.

    Raises
    ------
    ValueError
        If a setting is out of range.

    References
    ----------
    Hoffman and Gelman, "The No-U-Turn sampler", JMLR 2014. Betancourt, "A conceptual introduction
    to Hamiltonian Monte Carlo", 2017.

    Examples
    --------
    >>> import numpy as np
    >>> from avse_ppl import ComplexNormal, GaussianSpeech, Scene
    >>> wave = np.random.default_rng(0).normal(size=3000).astype("float32")
    >>> scene = Scene(GaussianSpeech(), lambda frames: ComplexNormal(0.0, 0.3))
    >>> posterior = NUTS(draws=4, warmup=4, chains=2, start="prior")(scene, wave, seed=0)
    >>> posterior.kind, posterior.speech.shape
    ('NUTS', (2, 4, 1, 3000))
    """

    max_tree_depth: int = 8

    def __post_init__(self) -> None:
        """Check the settings."""
        super().__post_init__()
        check_count("max_tree_depth", self.max_tree_depth)

    def _kernel(self, potential: Potential) -> mcmc.HMC:
        return NutsKernel(max_tree_depth=self.max_tree_depth, **self._adaptation(potential))


@dataclass(frozen=True)
class HMC(HamiltonianMonteCarlo):
    r"""Hamiltonian Monte Carlo over all latents, with trajectories of a given number of steps.

    Parameters
    ----------
    draws, warmup, chains, target_acceptance, start, start_steps, waveforms, tempering
        As for `NUTS`.
    device, dtype, progress
        As for `NUTS`.
    steps
        Gradient steps of a trajectory: between half as many and this many, at random.

    Raises
    ------
    ValueError
        If a setting is out of range.

    References
    ----------
    Neal, "MCMC using Hamiltonian dynamics", Handbook of Markov Chain Monte Carlo, 2011.

    Examples
    --------
    >>> HMC(steps=20).steps
    20
    """

    steps: int = 16

    def __post_init__(self) -> None:
        """Check the settings."""
        super().__post_init__()
        check_count("steps", self.steps)

    def _kernel(self, potential: Potential) -> mcmc.HMC:
        return HmcKernel(self.steps, **self._adaptation(potential))
