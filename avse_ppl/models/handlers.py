"""Effect handlers of scenes: the plate of recordings, substitution of values, log-probabilities.

A scene is run in three ways: with its latents sampled, with given values, or for its log
joint density. All three stand inside one plate over recordings (`recording_plate`), and the
last two put values in at the sample sites (`SubstituteLogProb` and its subclasses, which add
log-probabilities up by recording, by frame or by bin).
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any, ParamSpec, TypeVar

import pyro as torch_pyro
import torch
from pyro import poutine
from pyro.distributions import Delta
from pyro.poutine.messenger import Messenger
from pyroapi import pyro
from torch import Tensor

from avse_ppl.distributions.backend import on_jax

_P = ParamSpec("_P")
_T = TypeVar("_T")
_ONE_THREAD = threading.RLock()  # Pyro and NumPyro keep one stack of handlers for a process


def serialise(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """Let one thread at a time into a function that runs Pyro or NumPyro programs.

    Both keep their handlers on one stack for the whole process: models that run in two threads at
    once would see each other's. Threads wait for each other here, and each gets what it would get
    alone. For more speed, give all recordings to one call, or use processes.

    Examples
    --------
    >>> serialise(lambda: "alone")()
    'alone'
    """

    @functools.wraps(function)
    def call_alone(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        with _ONE_THREAD:
            return function(*args, **kwargs)

    return call_alone


def reuse_plates() -> AbstractContextManager[Any]:
    """Handler under which one plate name may be opened again.

    Speech, noise and their parts may each open ``plate("time", ...)``: hiding a plate's own
    bookkeeping site keeps a trace from refusing the second of the same name. NumPyro has no such
    site.
    """
    if on_jax():
        return nullcontext()
    return poutine.block(hide_fn=lambda msg: type(msg.get("fn")).__name__ == "_Subsample")


class FrozenParameters(Messenger):
    """Parameters of modules as the constants they are, without Pyro's store of parameters.

    The store would hand out the first value that it ever saw under a name, and ask for gradients.
    """

    def _pyro_param(self, msg: dict[str, Any]) -> None:
        first = msg["args"][1] if len(msg["args"]) > 1 else None
        if isinstance(first, torch.nn.Parameter):
            msg["value"], msg["done"] = first.detach(), True


def numbers_on(device: torch.device | None) -> AbstractContextManager[Any]:
    """Context in which the plain numbers of a model become tensors of a device."""
    return nullcontext() if device is None or device.type == "cpu" else device


@contextmanager
def recording_plate(
    recordings: int,
    *,
    device: torch.device | None = None,
    isolated: bool = False,
    validated: bool = True,
) -> Iterator[None]:
    """Plate over recordings, ``dim=-3``, in which a scene or a part of one is run.

    Parameters
    ----------
    recordings
        Length of the plate.
    device
        Where plain numbers of the models become tensors.
    isolated
        Without gradients, with nothing of it in traces outside, and with the caller's random
        numbers left as they were.
    validated
        False: Pyro's own checks of values and shapes are left out.

    Examples
    --------
    >>> from avse_ppl import Frames, stationary
    >>> with recording_plate(3, isolated=True):
    ...     law = stationary(Frames(freq=5, time=7))
    >>> law.power.shape
    torch.Size([3, 5, 1])
    """
    with _ONE_THREAD, ExitStack() as contexts:
        if isolated:
            contexts.enter_context(torch.random.fork_rng(devices=[]))
            contexts.enter_context(torch.no_grad())
            contexts.enter_context(poutine.block())
        contexts.enter_context(reuse_plates())
        if not on_jax():
            contexts.enter_context(FrozenParameters())
        if not validated:
            contexts.enter_context(torch_pyro.validation_enabled(False))
        contexts.enter_context(numbers_on(device))
        contexts.enter_context(pyro.plate("recording", recordings, dim=-3))
        yield


MIXTURE = "mixture"  # the site of the scene itself
PREDICTED = "speech.predicted"  # what a predictor made of the mixture
LIKELIHOOD = frozenset(
    {MIXTURE, PREDICTED}
)  # sites with a value in each bin, which tempering concerns


def is_deterministic(msg: Mapping[str, Any]) -> bool:
    """Whether a site only records a value: ``pyro.deterministic``, or one that was reparametrised.

    Examples
    --------
    >>> import pyro
    >>> from pyro import poutine
    >>> trace = poutine.trace(lambda: pyro.deterministic("twice", torch.ones(()))).get_trace()
    >>> is_deterministic(trace.nodes["twice"])
    True
    """
    law = msg["fn"]
    while hasattr(law, "base_dist") and not isinstance(law, Delta):
        law = law.base_dist
    recorded = msg["infer"] is not None and msg["infer"].get("_deterministic", False)
    return msg["is_observed"] and (recorded or isinstance(law, Delta))


class SubstituteLogProb(Messenger):
    """Substitute values at the sample sites, and hand on the log-probability of each site.

    No trace is built. Masked elements count 0, and scales multiply. What a model observes or adds
    by ``pyro.factor`` beside the mixture and what was predicted of it counts like a prior: it is no
    part of the likelihood, and is not tempered. Subclasses say in `add` how to sum.

    Parameters
    ----------
    values
        Values of latents on their supports, ``(recording, ...)`` each.
    sites
        Names of the sites whose log-probabilities are wanted; None for all.
    """

    def __init__(self, values: Mapping[str, Tensor], sites: Collection[str] | None = None) -> None:
        super().__init__()
        self.values, self.sites = values, sites

    def add(self, terms: Tensor, *, likelihood: bool) -> None:
        """Count the log-probabilities of one site, ``(recording or 1, ...)``."""
        raise NotImplementedError

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if msg["name"] in self.values:
            msg["value"], msg["done"] = self.values[msg["name"]], True

    def _pyro_post_sample(self, msg: dict[str, Any]) -> None:
        if self.sites is not None and msg["name"] not in self.sites:
            return
        mask = msg["mask"]
        if mask is False or is_deterministic(msg):
            return
        terms = msg["fn"].log_prob(msg["value"])
        if isinstance(mask, Tensor):
            terms = torch.where(mask, terms, terms.new_zeros(()))
        if isinstance(msg["scale"], Tensor) or msg["scale"] != 1.0:
            terms = terms * msg["scale"]
        self.add(terms, likelihood=msg["name"] in LIKELIHOOD)


class LogProbByRecording(SubstituteLogProb):
    """Log prior and log likelihood of each recording, ``(recording,)``, given all latents.

    Parameters
    ----------
    values
        Values of all latents.
    recordings
        Number of recordings.

    Raises
    ------
    ValueError
        While the scene runs, if it samples a latent without a value.

    Examples
    --------
    >>> from avse_ppl import Frames, stationary
    >>> values = {"noise.power": torch.ones(2, 5, 1)}
    >>> with LogProbByRecording(values, 2) as log_prob, recording_plate(2):
    ...     law = stationary(Frames(freq=5, time=7))
    >>> log_prob.prior.shape, log_prob.likelihood
    (torch.Size([2]), 0.0)
    """

    def __init__(self, values: Mapping[str, Tensor], recordings: int) -> None:
        super().__init__(values)
        self.recordings = recordings
        self.prior: Any = 0.0
        self.likelihood: Any = 0.0
        self.substituted = 0

    def check_complete(self) -> None:
        """Raise ValueError if a latent with a value was not sampled: its prior would be missing."""
        if self.substituted < len(self.values):
            raise _sites_changed("fewer latents than before")

    def add(self, terms: Tensor, *, likelihood: bool) -> None:
        """Sum over everything but recordings."""
        total = terms.expand(self.recordings, *terms.shape[1:]).flatten(1).sum(1)
        if likelihood:
            self.likelihood = self.likelihood + total
        else:
            self.prior = self.prior + total

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        super()._pyro_sample(msg)
        if msg["name"] in self.values:
            self.substituted += 1
        elif not msg["is_observed"]:
            raise _sites_changed(f"a latent {msg['name']!r} that was not there before")


class LogProbByFrame(SubstituteLogProb):
    """Log joint density by frame, ``(recording, time)``, and of what belongs to no frame.

    Parameters
    ----------
    values
        Values of all latents.
    mixture
        What is observed, ``(recording, freq, time)``.
    tempering
        Power of the likelihood.
    """

    def __init__(self, values: Mapping[str, Tensor], mixture: Tensor, tempering: float) -> None:
        super().__init__(values)
        self.tempering = tempering
        self.recordings, _, self.time = mixture.shape
        zero = torch.zeros((), dtype=mixture.real.dtype, device=mixture.device)
        self.frames = zero.expand(self.recordings, self.time)
        self.rest = zero.expand(self.recordings)

    def add(self, terms: Tensor, *, likelihood: bool = False) -> None:
        """Sum over frequency where there is a time axis, otherwise over everything."""
        terms = self.tempering * terms if likelihood else terms
        terms = terms.expand(self.recordings, *terms.shape[1:])
        if terms.ndim == 3 and terms.shape[-1] == self.time:
            self.frames = self.frames + terms.sum(1)
        else:
            self.rest = self.rest + terms.flatten(1).sum(1)


class LogProbByBin(SubstituteLogProb):
    """Log prior of the latents of single bins, ``(recording, freq, time)``, summed over sites.

    Parameters
    ----------
    values
        Values of all latents.
    sites
        Names of the latents of single bins.
    """

    def __init__(self, values: Mapping[str, Tensor], sites: Collection[str]) -> None:
        super().__init__(values, sites)
        self.log_prior = torch.zeros(())

    def add(self, terms: Tensor, *, likelihood: bool) -> None:
        """Sum over sites only."""
        self.log_prior = self.log_prior + terms


def _sites_changed(what: str) -> ValueError:
    return ValueError(
        f"the scene sampled {what}; expected the same latents whatever their values are. Sample "
        "all of them always, and choose with torch.where or a smooth weight."
    )
