"""Expectation-maximisation: speech latents in the E-step, a point estimate of the noise."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from avse_ppl.inference.core.build_posterior import build_posterior, kind_of
from avse_ppl.inference.core.initialization import warm_start
from avse_ppl.inference.core.log_density import LogDensity, Values
from avse_ppl.inference.core.resources import check_memory, explain_out_of_memory
from avse_ppl.inference.core.setup import Mixture, RandomStreams, Seed, check_seed, prepare
from avse_ppl.inference.core.threads import limit_threads
from avse_ppl.inference.em.blocks import choose_blocks
from avse_ppl.inference.em.e_steps import EStep, EStepResult, GradientStep, VariationalStep
from avse_ppl.inference.em.frame_density import FrameLogDensity
from avse_ppl.inference.em.history import EMHistory
from avse_ppl.inference.em.m_step import maximise_noise
from avse_ppl.inference.em.metropolis import Metropolis
from avse_ppl.inference.em.proposals import LangevinWalk, RandomWalk
from avse_ppl.models.scene import Scene
from avse_ppl.models.validation import check_count, check_positive
from avse_ppl.posterior.posterior import Posterior
from avse_ppl.signal.stft import Spectrogram

_KINDS = {
    "point": "point estimate",
    "langevin": "Langevin, noise a point estimate",
    "mala": "Metropolis-adjusted Langevin, noise a point estimate",
    "mh": "random walk Metropolis, noise a point estimate",
    "variational": "variational, noise a point estimate",
}
_METROPOLIS = ("mala", "mh")
_TARGETS = {"mala": 0.57, "mh": 0.25}  # acceptance: what is best in many dimensions, and in few
_WARM_UP_STEP = 0.4  # of the Langevin steps before: it need not be right, only get near
_SEEN = 4  # moves of a round, at most, that the M-step averages over


@dataclass(frozen=True)
class EM:
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
    waveforms
        Whether to draw waveforms too: needed for intervals, left out for speed.
    tempering
        Power of the likelihood; anything but 1 is flagged.
    device, dtype, progress
        As for `SVI`.

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
    draws: int = 50
    waveforms: bool = True
    tempering: float = 1.0
    device: str = "cpu"
    dtype: torch.dtype = torch.float32
    progress: Callable[[int, int], None] | None = None

    def __post_init__(self) -> None:
        """Check the settings."""
        if self.e_step not in _KINDS:
            raise ValueError(f"e_step must be one of {tuple(_KINDS)}, not {self.e_step!r}")
        for what in ("rounds", "e_steps", "draws"):
            check_count(what, getattr(self, what))
        check_count("warm_up", self.warm_up, minimum=0)
        if self.warm_up and (self.e_step not in _METROPOLIS or self.warm_up >= self.rounds):
            raise ValueError(
                f"warm_up must be 0, or below rounds={self.rounds} with one of {_METROPOLIS} as "
                f"e_step; found {self.warm_up} with {self.e_step!r}"
            )
        check_positive("step_size", self.step_size)
        check_positive("tempering", self.tempering)

    def __call__(
        self,
        scene: Scene,
        mixture: Mixture,
        video: Any = None,
        *,
        seed: Seed = 0,
    ) -> Posterior:
        """Invert a scene; see `SVI` for the arguments.

        Returns
        -------
        Posterior
            With ``trace["log_joint"]``, nats, ``(round, recording)``, or ``trace["elbo"]`` of the
            variational E-step. ``"mala"`` and ``"mh"`` come with statistics of their draws, ``lp``
            (given the noise before it followed the draw) and ``acceptance_rate``, and warn in
            ``attrs["warnings"]`` if draws hardly move.
        """
        scene, spectrogram, randoms = prepare(scene, mixture, video, seed, self.device, self.dtype)
        with limit_threads(spectrogram), explain_out_of_memory(spectrogram):
            return self._invert(scene, spectrogram, randoms, check_seed(seed))

    def _invert(
        self, scene: Scene, spectrogram: Spectrogram, randoms: RandomStreams, seed: int | list[int]
    ) -> Posterior:
        begin = time.perf_counter()
        density = LogDensity(scene, spectrogram)
        check_memory(density, draws=self._kept_rounds(), waveforms=self.draws * self.waveforms)
        log = self._rounds(density, randoms)
        draws = self._draws(density, log)
        attrs = {
            "routine": f"em-{self.e_step}", "seed": seed, "rounds": len(log.objective),
            "tempering": self.tempering, "inference_s": round(time.perf_counter() - begin, 3),
            **log.remarks(spectrogram.recordings),
        }  # fmt: skip
        trace = {"elbo" if self.e_step == "variational" else "log_joint": log.trace()}
        return build_posterior(
            scene, spectrogram, draws, randoms, kind=kind_of(_KINDS[self.e_step], self.tempering),
            attrs=attrs, waveforms=self.draws * self.waveforms, trace=trace,
            stats=log.stats(len(draws)),
        )  # fmt: skip

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
