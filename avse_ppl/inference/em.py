"""Expectation-maximisation: speech latents in the E-step, a point estimate of the noise."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from avse_ppl.checks import check_count, check_positive
from avse_ppl.inference.density import Density, Values
from avse_ppl.inference.maximise import maximise_noise
from avse_ppl.inference.setup import Mixture, Randoms, Seed, check_seed, prepare
from avse_ppl.inference.start import warm_start
from avse_ppl.inference.summary import kind_of, summarise
from avse_ppl.inference.threads import enough_threads
from avse_ppl.posterior import Posterior
from avse_ppl.scene import Scene
from avse_ppl.stft import Spectrogram

_E_STEPS = ("point", "langevin")


@dataclass(frozen=True)
class EM:
    r"""Monte-Carlo EM for scenes with one speech prior and one noise model.

    The E-step moves the speech latents z given the noise; the M-step moves the noise latents up
    their log posterior given the speech draws, never down.

    - ``e_step="point"``: Adam steps to the mode of z (PEEM). Flagged as a point estimate: its
      variance is what Wiener filtering leaves and nothing else.
    - ``e_step="langevin"``: preconditioned Langevin steps (LDEM),

      .. math:: z \leftarrow z + \tfrac{\epsilon}{2} P \nabla \log p(x, z | B)
          + \sqrt{\epsilon P}\, \xi

      with P the inverse root of a running mean of squared gradients. Unadjusted: its draws carry
      a bias that shrinks with the step. The noise is a point estimate in both.

    Parameters
    ----------
    e_step
        ``"point"`` or ``"langevin"``.
    rounds
        EM rounds.
    e_steps
        Moves of z in each round; the M-step averages over all of them.
    step_size
        Adam's rate, or the Langevin step.
    draws
        Waveforms in the posterior, and at most so many draws of z, from the last half of the
        rounds.
    waveforms
        Whether to draw waveforms too: needed for intervals, left out for speed.
    tempering
        Power of the likelihood; anything but 1 is flagged.
    device, dtype, progress
        As for `SVI`.

    Raises
    ------
    ValueError
        If a setting is out of range.

    References
    ----------
    Leglaive, Girin and Horaud, MLSP 2018 (Monte-Carlo EM). Sadeghi and Serizel, "Fast and
    efficient speech enhancement with variational autoencoders", ICASSP 2023 (Langevin EM). Li,
    Chen, Carlson and Carin, "Preconditioned stochastic gradient Langevin dynamics", AAAI 2016.

    Examples
    --------
    >>> import numpy as np
    >>> from avse_ppl import EM, NMF, GaussianSpeech, Scene
    >>> wave = np.random.default_rng(0).normal(size=4000).astype("float32")
    >>> EM(rounds=5, draws=5)(Scene(GaussianSpeech(), NMF(2)), wave, seed=0).kind
    'point estimate'
    """

    e_step: str = "point"
    rounds: int = 150
    e_steps: int = 1
    step_size: float = 0.05
    draws: int = 50
    waveforms: bool = True
    tempering: float = 1.0
    device: str = "cpu"
    dtype: torch.dtype = torch.float32
    progress: Callable[[int, int], None] | None = None

    def __post_init__(self) -> None:
        """Check the settings."""
        if self.e_step not in _E_STEPS:
            raise ValueError(f"e_step must be one of {_E_STEPS}, not {self.e_step!r}")
        for what in ("rounds", "e_steps", "draws"):
            check_count(what, getattr(self, what))
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
            With ``trace["log_joint"]``, nats, ``(round, recording)``.
        """
        scene, spectrogram, randoms = prepare(scene, mixture, video, seed, self.device, self.dtype)
        with enough_threads(spectrogram):
            return self._invert(scene, spectrogram, randoms, check_seed(seed))

    def _invert(
        self, scene: Scene, spectrogram: Spectrogram, randoms: Randoms, seed: int | list[int]
    ) -> Posterior:
        begin = time.perf_counter()
        density = Density(scene, spectrogram)
        state, _ = warm_start(density, randoms)
        draws, trace = self._rounds(density, state, randoms)
        langevin = self.e_step == "langevin"
        kind = "Langevin, noise a point estimate" if langevin else "point estimate"
        attrs = {
            "routine": f"em-{self.e_step}", "seed": seed, "rounds": self.rounds,
            "tempering": self.tempering, "inference_s": round(time.perf_counter() - begin, 3),
        }  # fmt: skip
        return summarise(
            scene, spectrogram, draws, randoms, kind=kind_of(kind, self.tempering), attrs=attrs,
            waveforms=self.draws * self.waveforms, trace={"log_joint": np.stack(trace)},
        )  # fmt: skip

    def _rounds(
        self, density: Density, state: Values, randoms: Randoms
    ) -> tuple[list[Values], list[np.ndarray]]:
        mover = _Mover(self, density, state, randoms)
        trace: list[Tensor] = []
        kept: list[Values] = []
        last = range(self.rounds - self._kept_rounds(), self.rounds)
        for index in range(self.rounds):
            moves = [mover.move(state) for _ in range(self.e_steps)]
            powers = torch.stack([power for _, power in moves])
            state |= maximise_noise(density, state, powers, self.tempering)
            trace.append(moves[-1][0])
            if index in last:
                kept.append({k: v.clone() for k, v in density.constrain(state)[0].items()})
            if self.progress is not None:
                self.progress(index + 1, self.rounds)
        return kept, list(torch.stack(trace).cpu().numpy())

    def _kept_rounds(self) -> int:
        """Count the rounds whose state is a draw: the last one, or up to the last half."""
        return 1 if self.e_step == "point" else max(1, min(self.draws, self.rounds // 2))


class _Mover:
    """Moves the speech latents, in place, by one step of the chosen kind."""

    def __init__(self, em: EM, density: Density, state: Values, randoms: Randoms) -> None:
        self.em, self.density, self.randoms = em, density, randoms
        self.names = density.names(of_noise=False)
        self.step = 0
        self.first = {name: torch.zeros_like(state[name]) for name in self.names}
        self.second = {name: torch.zeros_like(state[name]) for name in self.names}

    def move(self, state: Values) -> tuple[Tensor, Tensor]:
        """Take one step; return the log joint before it, and the speech power it saw."""
        self.step += 1
        for name in self.names:
            state[name] = state[name].detach().requires_grad_()
        # The M-step climbs the density of the noise values: only speech is on the real line.
        values, _ = self.density.constrain(state)
        _, log_jacobian = self.density.constrain({name: state[name] for name in self.names})
        joint = self.density.joint(values)
        log_joint = self.em.tempering * joint.likelihood + joint.prior + log_jacobian
        if self.names:
            gradients = torch.autograd.grad(log_joint.sum(), [state[n] for n in self.names])
            for name, gradient in zip(self.names, gradients, strict=True):
                state[name] = state[name].detach() + self._increment(name, gradient)
        power = joint.laws.speech.power.detach()
        return log_joint.detach(), power.expand(self.density.mixture.values.shape)

    def _increment(self, name: str, gradient: Tensor) -> Tensor:
        decay = 0.99
        self.second[name].mul_(decay).addcmul_(gradient, gradient, value=1 - decay)
        root = (self.second[name] / (1 - decay**self.step)).sqrt() + 1e-8
        size = self.em.step_size
        if self.em.e_step == "point":
            self.first[name].mul_(0.9).add_(gradient, alpha=0.1)
            return size * self.first[name] / (1 - 0.9**self.step) / root
        drift = 0.5 * size * gradient / root
        return drift + (size / root).sqrt() * self.randoms.normal(gradient.shape, gradient.dtype)
