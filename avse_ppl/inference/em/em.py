"""Monte-Carlo expectation-maximisation: draws of speech, a point estimate of the noise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import torch

from avse_ppl.inference.base import Draws, InferenceMethod, Problem
from avse_ppl.inference.core.initialization import warm_start
from avse_ppl.inference.core.log_density import LogDensity, Values
from avse_ppl.inference.core.resources import check_memory
from avse_ppl.inference.core.setup import RandomStreams
from avse_ppl.inference.em.blocks import choose_blocks
from avse_ppl.inference.em.e_steps import EStep, GradientStep, VariationalStep
from avse_ppl.inference.em.frame_density import FrameLogDensity
from avse_ppl.inference.em.history import EMHistory
from avse_ppl.inference.em.m_step import maximise_noise
from avse_ppl.inference.em.metropolis import Metropolis
from avse_ppl.inference.em.proposals import LangevinWalk, RandomWalk
from avse_ppl.models.protocols import receptive_field_of
from avse_ppl.models.scene import Scene
from avse_ppl.models.validation import check_count, check_positive
from avse_ppl.posterior.approximation import Approximation
from avse_ppl.utils.run_time import TimeLimitReached

_KINDS = MappingProxyType({
    "point": Approximation("point estimate"),
    "langevin": Approximation("Langevin", noise="point estimate"),
    "mala": Approximation("Metropolis-adjusted Langevin", noise="point estimate"),
    "mh": Approximation("random walk Metropolis", noise="point estimate"),
    "variational": Approximation("variational", noise="point estimate"),
})  # fmt: skip
_METROPOLIS = ("mala", "mh")
_TARGETS = {"mala": 0.57, "mh": 0.25}  # acceptance: what is best in many dimensions, and in few
_WARM_UP_STEP = 0.4  # of the Langevin steps before: it need not be right, only get near
_AVERAGED = 4  # steps of an iteration, at most, that the M-step averages over


@dataclass(frozen=True)
class EM(InferenceMethod):
    r"""Monte-Carlo expectation-maximisation for scenes with one speech prior and one noise model.

    The E-step updates the speech latents z given the noise; the M-step moves the noise latents up
    their log posterior given the speech draws, never down. The noise is a point estimate in all.

    - ``e_step="point"``: Adam steps to the mode of z (PEEM). Flagged as a point estimate: its
      variance is what Wiener filtering leaves and nothing else.
    - ``e_step="langevin"``: preconditioned Langevin steps (LDEM),

      .. math:: z \leftarrow z + \tfrac{\epsilon}{2} P \nabla \log p(x, z | B)
          + \sqrt{\epsilon P}\, \xi

      with P the inverse root of a running mean of squared gradients. Unadjusted: its draws carry
      a bias that shrinks with the step.
    - ``e_step="mala"``: such steps, accepted or refused, so that given the noise the draws are
      from the posterior of z. Where the prior couples frames, all of a recording are accepted
      together.
    - ``e_step="mh"``: random walks, which need no gradient. Few frames change at once where the
      prior couples them; see `avse_ppl.inference.em.metropolis.Metropolis`.
    - ``e_step="variational"``: a mean-field normal guide over z that starts at the encoder's
      guess (VEM); the M-step is given its draws.

    Which frames a prior couples is its ``receptive_field``, in frames to either side; one that has
    none is taken to couple all.

    Parameters
    ----------
    e_step
        One of the above.
    iterations
        EM iterations.
    e_steps
        Steps of z in each iteration; the M-step averages over up to 4 of them.
    step_size
        Adam's rate, the Langevin step, or the initial step of ``"mala"`` and ``"mh"``, in
        posterior standard deviations; these are adapted until draws are kept.
    warm_up
        For ``"mala"`` and ``"mh"``: how many iterations, at first, are one Langevin step each. They
        reach the posterior much sooner, and estimate its standard deviations.
    draws
        Waveforms in the posterior, and at most so many draws of z, from the last half of the
        iterations after the warm-up.
    waveforms, tempering, device, dtype, progress
        Common to all methods; see `avse_ppl.inference.base.InferenceMethod`.

    Raises
    ------
    ValueError
        If a setting is out of range or, when called, the log joint stops being a finite number.

    Warns
    -----
    UserWarning
        If interrupted (Ctrl-C): the result is then of the iterations so far, as it is at a time
        limit, and says so in ``kind`` and ``attrs["interrupted"]``.

    References
    ----------
    Leglaive, Girin and Horaud, MLSP 2018 (Monte-Carlo EM). Leglaive, Alameda-Pineda, Girin and
    Horaud, ICASSP 2020 (variational EM). Sadeghi and Serizel, "Fast and efficient speech
    enhancement with variational autoencoders", ICASSP 2023 (Langevin EM). Li, Chen, Carlson and
    Carin, "Preconditioned stochastic gradient Langevin dynamics", AAAI 2016.

    Examples
    --------
    >>> import numpy as np
    >>> from avse_ppl import EM, NMF, GaussianSpeech, Scene
    >>> wave = np.random.default_rng(0).normal(size=4000).astype("float32")
    >>> scene = Scene(GaussianSpeech(), NMF(2))
    >>> EM(iterations=5, draws=5)(scene, wave, seed=0).kind
    'point estimate'
    >>> posterior = EM("mh", iterations=8, e_steps=4, step_size=1.0, draws=4)(scene, wave, seed=0)
    >>> posterior.stats["acceptance_rate"].shape
    (1, 4, 1)
    """

    e_step: str = "point"
    iterations: int = 150
    e_steps: int = 1
    step_size: float = 0.05
    warm_up: int = 0

    name: ClassVar[str] = "em"
    faster: ClassVar[str] = "fewer iterations, 'svi', or a GPU"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.e_step not in _KINDS:
            raise ValueError(f"e_step must be one of {tuple(_KINDS)}, not {self.e_step!r}")
        for what in ("iterations", "e_steps"):
            check_count(what, getattr(self, what))
        check_count("warm_up", self.warm_up, minimum=0)
        if self.warm_up and (self.e_step not in _METROPOLIS or self.warm_up >= self.iterations):
            raise ValueError(
                f"warm_up must be 0, or below iterations={self.iterations} with one of "
                f"{_METROPOLIS} as e_step; found {self.warm_up} with {self.e_step!r}"
            )
        check_positive("step_size", self.step_size)

    @property
    def full_name(self) -> str:
        """``"em"`` with the E-step behind it."""
        return f"{self.name}-{self.e_step}"

    def draws_all_latents(self, scene: Scene) -> bool:
        """Return False: the noise is a point estimate."""
        return False

    def _run(self, problem: Problem) -> Draws:
        """Posterior with ``trace["log_joint"]``, nats, ``(iteration, recording)``, or ``"elbo"``.

        ``"mala"`` and ``"mh"`` come with statistics of their draws, ``lp`` (given the noise before
        the M-step) and ``acceptance_rate``, and warn if draws hardly move.
        """
        density = LogDensity(problem.scene, problem.spectrogram)
        check_memory(density, draws=self.kept_iterations, waveforms=self.n_waveforms)

        # Alternate E- and M-steps.
        state, log_sd = warm_start(density, problem.streams)
        history = EMHistory(self.iterations, dict(state))
        try:
            for step, count in self.schedule_steps(density, state, log_sd, problem.streams):
                done = len(history.objective)
                burn_in = done < self.iterations - self.kept_iterations
                results = step.run_steps(state, count, burn_in)
                stride = -(-len(results) // _AVERAGED)
                used = results[::-1][::stride]
                powers = torch.stack([result.power for result in used])
                residuals = [r.residual for r in used if r.residual is not None]
                residual = torch.stack(residuals) if residuals else None
                state |= maximise_noise(density, state, powers, self.tempering, residual)
                history.add(step, results, state, keep=not burn_in)
                history.check_finite(self.step_size)
                problem.clock(done + 1, self.iterations)
        except (KeyboardInterrupt, TimeLimitReached) as error:
            if not history.objective:
                raise
            history.end_early(error)

        # Draws of the guide, or the states that were kept.
        if isinstance(history.step, VariationalStep):
            states = [history.last | history.step.draw() for _ in range(self.draws)]
        else:
            states = history.kept or [history.last]
        return Draws(
            [density.constrain(state)[0] for state in states],
            _KINDS[self.e_step],
            trace={"elbo" if self.e_step == "variational" else "log_joint": history.trace()},
            stats=history.stats(len(states)),
            fit=history.fit_infos(problem.recordings),
            attrs={"iterations": len(history.objective)},
            ended_early=history.ended_early,
        )

    @property
    def kept_iterations(self) -> int:
        """Number of iterations whose state is a draw: the last one, or up to the last half."""
        if self.e_step in ("point", "variational"):
            return 1
        return max(1, min(self.draws, (self.iterations - self.warm_up) // 2))

    def schedule_steps(
        self, density: LogDensity, state: Values, log_sd: Values, streams: RandomStreams
    ) -> Iterator[tuple[EStep, int]]:
        """E-step of each iteration, and how many steps of it are taken."""
        log_density = FrameLogDensity(density, self.tempering)
        scale = {name: value.exp() for name, value in log_sd.items()}
        if self.warm_up:
            warm = GradientStep(log_density, streams, _WARM_UP_STEP, noisy=True)
            yield from [(warm, 1)] * self.warm_up
            scale = warm.scale()
        if self.e_step == "variational":
            steps = self.iterations * self.e_steps
            step: EStep = VariationalStep(
                log_density, streams, state, log_sd, self.step_size, steps
            )
        elif self.e_step not in _METROPOLIS:
            noisy = self.e_step == "langevin"
            step = GradientStep(log_density, streams, self.step_size, noisy=noisy)
        else:
            scale = log_density.speech_of(scale)
            proposal = LangevinWalk(scale) if self.e_step == "mala" else RandomWalk(scale)
            receptive_field = receptive_field_of(density.scene.speech)
            blocks = choose_blocks(log_density, receptive_field, proposal.gradients)
            step = Metropolis(
                log_density, blocks, proposal, streams, step_size=self.step_size,
                target=_TARGETS[self.e_step],
            )  # fmt: skip
        yield from [(step, self.e_steps)] * (self.iterations - self.warm_up)
