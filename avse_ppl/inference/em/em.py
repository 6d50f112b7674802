"""Expectation-maximisation: speech latents in the E-step, a point estimate of the noise."""

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
from avse_ppl.inference.em.e_steps import EStep, EStepResult, GradientStep, VariationalStep
from avse_ppl.inference.em.frame_density import FrameLogDensity
from avse_ppl.inference.em.history import EMHistory
from avse_ppl.inference.em.m_step import maximise_noise
from avse_ppl.inference.em.metropolis import Metropolis
from avse_ppl.inference.em.proposals import LangevinWalk, RandomWalk
from avse_ppl.models.scene import Scene
from avse_ppl.models.validation import check_count, check_positive
from avse_ppl.posterior.approximation import Approximation

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
_SEEN = 4  # moves of a round, at most, that the M-step averages over


@dataclass(frozen=True)
class EM(InferenceMethod):
    r"""Monte-Carlo EM for scenes with one speech prior and one noise model.

    The E-step moves the speech latents z given the noise; the M-step moves the noise latents up
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
    - ``e_step="mh"``: random walks, which need no gradient. Few frames move at once where the
      prior couples them; see `avse_ppl.inference.em.metropolis.Metropolis`.
    - ``e_step="variational"``: a mean-field normal guide over z that starts at the encoder's
      guess (VEM); the noise follows its draws.

    Which frames a prior couples it declares as ``reach``, in frames to either side; one that does
    not is taken to couple all.

    Parameters
    ----------
    e_step
        One of the above.
    rounds
        EM rounds.
    e_steps
        Moves of z in each round; the M-step averages over up to 4 of them.
    step_size
        Adam's rate, the Langevin step, or where the steps of ``"mala"`` and ``"mh"`` start, in
        posterior deviations; these are adapted until draws are kept.
    warm_up
        For ``"mala"`` and ``"mh"``: how many rounds, at first, are one Langevin step each. They
        go where the posterior is much faster, and find out how wide it is.
    draws
        Waveforms in the posterior, and at most so many draws of z, from the last half of the
        rounds after the warm-up.
    waveforms, tempering, device, dtype, progress
        Common to all methods; see `avse_ppl.inference.base.InferenceMethod`.

    Raises
    ------
    ValueError
        If a setting is out of range or, when called, the log joint stops being a finite number.

    Warns
    -----
    UserWarning
        If interrupted (Ctrl-C): the result is then of the rounds so far, and says so in
        ``attrs["interrupted"]``.

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
    >>> EM(rounds=5, draws=5)(scene, wave, seed=0).kind
    'point estimate'
    >>> posterior = EM("mh", rounds=8, e_steps=4, step_size=1.0, draws=4)(scene, wave, seed=0)
    >>> posterior.stats["acceptance_rate"].shape
    (1, 4, 1)
    """

    e_step: str = "point"
    rounds: int = 150
    e_steps: int = 1
    step_size: float = 0.05
    warm_up: int = 0

    name: ClassVar[str] = "em"

    def __post_init__(self) -> None:
        """Check the settings."""
        super().__post_init__()
        if self.e_step not in _KINDS:
            raise ValueError(f"e_step must be one of {tuple(_KINDS)}, not {self.e_step!r}")
        for what in ("rounds", "e_steps"):
            check_count(what, getattr(self, what))
        check_count("warm_up", self.warm_up, minimum=0)
        if self.warm_up and (self.e_step not in _METROPOLIS or self.warm_up >= self.rounds):
            raise ValueError(
                f"warm_up must be 0, or below rounds={self.rounds} with one of {_METROPOLIS} as "
                f"e_step; found {self.warm_up} with {self.e_step!r}"
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
        """Posterior with ``trace["log_joint"]``, nats, ``(round, recording)``, or ``"elbo"``.

        ``"mala"`` and ``"mh"`` come with statistics of their draws, ``lp`` (given the noise before
        it followed the draw) and ``acceptance_rate``, and warn if draws hardly move.
        """
        density = LogDensity(problem.scene, problem.spectrogram)
        check_memory(density, draws=self._kept_rounds(), waveforms=self.draws * self.waveforms)
        log = self._rounds(density, problem.streams)
        values = self._draws(density, log)
        return Draws(
            values,
            _KINDS[self.e_step],
            waveforms=self.draws * self.waveforms,
            trace={"elbo" if self.e_step == "variational" else "log_joint": log.trace()},
            stats=log.stats(len(values)),
            fit=log.facts(problem.recordings),
            attrs={
                "rounds": len(log.objective),
                **({"interrupted": True} if log.interrupted else {}),
            },
        )

    def _rounds(self, density: LogDensity, randoms: RandomStreams) -> EMHistory:
        state, log_sd = warm_start(density, randoms)
        log = EMHistory(self.rounds, dict(state))
        try:
            for step, count in self._steps(density, state, log_sd, randoms):
                done = len(log.objective)
                burn_in = done < self.rounds - self._kept_rounds()
                moves = step.moves(state, count, burn_in)
                powers = torch.stack([move.power for move in _some(moves)])
                state |= maximise_noise(density, state, powers, self.tempering)
                log.add(step, moves, state, keep=not burn_in)
                log.check_finite(self.step_size)
                if self.progress is not None:
                    self.progress(done + 1, self.rounds)
        except KeyboardInterrupt:
            if not log.objective:
                raise
            log.interrupted = True
        return log

    def _steps(
        self, density: LogDensity, state: Values, log_sd: Values, randoms: RandomStreams
    ) -> Iterator[tuple[EStep, int]]:
        """E-step of each round, and how many moves it takes."""
        score = FrameLogDensity(density, self.tempering)
        scale = {name: value.exp() for name, value in log_sd.items()}
        if self.warm_up:
            warm = GradientStep(score, randoms, _WARM_UP_STEP, noisy=True)
            yield from [(warm, 1)] * self.warm_up
            scale = warm.scale()
        step = self._step(score, state, log_sd, scale, randoms)
        yield from [(step, self.e_steps)] * (self.rounds - self.warm_up)

    def _step(
        self,
        score: FrameLogDensity,
        state: Values,
        log_sd: Values,
        scale: Values,
        randoms: RandomStreams,
    ) -> EStep:
        if self.e_step == "variational":
            steps = self.rounds * self.e_steps
            return VariationalStep(score, randoms, state, log_sd, self.step_size, steps)
        if self.e_step not in _METROPOLIS:
            return GradientStep(score, randoms, self.step_size, noisy=self.e_step == "langevin")
        scale = score.speech_of(scale)
        proposal = LangevinWalk(scale) if self.e_step == "mala" else RandomWalk(scale)
        reach = getattr(score.density.scene.speech, "receptive_field", None)
        plans = choose_blocks(score, reach, proposal.gradients)
        return Metropolis(
            score, plans, proposal, randoms, step_size=self.step_size,
            target=_TARGETS[self.e_step],
        )  # fmt: skip

    def _kept_rounds(self) -> int:
        """Count the rounds whose state is a draw: the last one, or up to the last half."""
        if self.e_step in ("point", "variational"):
            return 1
        return max(1, min(self.draws, (self.rounds - self.warm_up) // 2))

    def _draws(self, density: LogDensity, log: EMHistory) -> list[Values]:
        if isinstance(log.step, VariationalStep):
            states = [log.last | log.step.draw() for _ in range(self.draws)]
        else:
            states = log.kept or [log.last]
        return [density.constrain(state)[0] for state in states]


def _some(moves: list[EStepResult]) -> list[EStepResult]:
    """Return the last move and a few before it, evenly spaced."""
    stride = -(-len(moves) // _SEEN)
    return moves[::-1][::stride]
