"""What is asked of the sample sites of a model: names, priors, and that they stay the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from pyro import poutine
from pyro.distributions import ImproperUniform
from pyro.poutine.messenger import Messenger
from torch import Tensor

from avse_ppl.models.handlers import recording_plate

if TYPE_CHECKING:
    from avse_ppl.models.scene import Scene
    from avse_ppl.signal.stft import Frames

# Sites of the scene itself, its plates, and variables and dimensions of a posterior's file.
RESERVED = (
    "mixture", "speech", "recording", "freq", "time", "chain", "draw", "freq_hz", "time_s",
    "sample_s",
)  # fmt: skip
_RUNS = 3

Message = dict[str, Any]


class Watch(Messenger):
    """Notes the sample sites of a model, also of one that fails on the way."""

    def __init__(self) -> None:
        """Start without any."""
        super().__init__()
        self.sites: list[Message] = []
        self.subsampled: list[str] = []

    def _pyro_sample(self, msg: Message) -> None:
        fn: Any = msg["fn"]
        if type(fn).__name__ != "_Subsample":  # which is a plate's own
            self.sites.append(msg)
        elif fn.subsample_size not in (None, fn.size):
            self.subsampled.append(msg["name"])


def check_sites(title: str, watch: Watch) -> None:
    """Raise for the first site of a model that cannot be inferred.

    Parameters
    ----------
    title
        What the model is called in messages.
    watch
        What was seen while the model ran.

    Raises
    ------
    ValueError
        If a name is reserved or used twice, a plate takes a random part of its rows, or a latent is
        discrete, complex, or without a proper prior.
    """
    _check_names(title, [site["name"] for site in watch.sites])
    for name in watch.subsampled:
        raise ValueError(
            f"plate {name!r} of {title} takes a random part of its rows each time; expected all of "
            "them, so that the density is the same each time. Leave subsample_size out."
        )
    for site in watch.sites:
        if not site["is_observed"]:
            _check_prior(site["name"], site)


def check_unchanging(scene: Scene, frames: Frames) -> None:
    """Raise if which sites there are, or their shapes or supports, depend on what is drawn.

    The scene is run on a few draws of its prior for one recording, seeded apart from everything
    else.

    Raises
    ------
    ValueError
        If the sites of one run are not those of the next.
    """
    runs = [_run(scene, frames.take_first(), seed) for seed in range(_RUNS)]
    for other in runs[1:]:
        _compare(runs[0], other)


def _check_names(title: str, names: Sequence[str]) -> None:
    for name, count in Counter(names).items():
        if count > 1:
            raise ValueError(
                f"{title} samples {name!r} {count} times; expected one site of a name. In a loop, "
                f'number them, f"{name}_{{i}}", or sample them together on a plate.'
            )
        if name in RESERVED or name.startswith("_"):
            raise ValueError(
                f"site {name!r} of {title} has a reserved name; the scene and the posterior's file "
                f"use {', '.join(RESERVED)}, and names that start with '_'. Call it "
                f"'noise.{name.lstrip('_')}', for instance."
            )
        if "/" in name or not name:
            raise ValueError(
                f"site {name!r} of {title} cannot be stored: expected a name without '/', which "
                f"NetCDF takes for a group. Call it {name.replace('/', '.') or 'noise.level'!r}."
            )


def _check_prior(name: str, site: Message) -> None:
    law, value = site["fn"], site["value"]
    if isinstance(_base(law), ImproperUniform) or _masked(site["mask"]) or _masked(_mask_of(law)):
        raise improper(name, law, "is flat or masked, and has no integral")
    if getattr(law.support, "is_discrete", False) or _whole(value):
        raise ValueError(
            f"site {name!r} is discrete ({type(law).__name__}); the gradient-based routines need "
            "continuous latents. Use a relaxed law (Beta, RelaxedBernoulli) or sum it out."
        )
    if value is None:  # the model failed before
        return
    if value.is_complex():
        raise ValueError(
            f"site {name!r} is complex; expected real latents. Return ComplexNormal(mean, power) "
            "instead of sampling it: the scene integrates over it exactly."
        )
    if not _finite(value):
        raise improper(name, law, "gave a draw that is not finite")


def check_density(name: str, site: Message) -> None:
    """Raise unless the prior has a finite density at what was drawn from it."""
    if not _finite(site["fn"].log_prob(site["value"])):
        raise improper(name, site["fn"], "has no finite density at its own draw")


def improper(name: str, law: Any, what: str) -> ValueError:
    """Error for a prior that is none."""
    return ValueError(
        f"the prior of {name!r} ({type(_base(law)).__name__}) {what}; with it the posterior need "
        "not exist. Use a proper prior whose draws are finite numbers, for instance "
        "LogNormal(0.0, 2.0), or Uniform between finite bounds."
    )


def _base(law: Any) -> Any:
    """Law inside of what expands, masks or reinterprets it."""
    while hasattr(law, "base_dist") and type(law).__name__ in _WRAPPERS:
        law = law.base_dist
    return law


_WRAPPERS = ("Independent", "MaskedDistribution", "ExpandedDistribution")


def _mask_of(law: Any) -> Any:
    return getattr(law, "_mask", None)


def _masked(mask: Any) -> bool:
    """Whether a mask takes the density of any entry away."""
    return mask is False or (isinstance(mask, Tensor) and not bool(mask.all()))


def _whole(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dtype in (torch.int64, torch.bool)


def _finite(values: Tensor) -> bool:
    return bool(torch.isfinite(values.detach()).all())


def _run(scene: Scene, frames: Frames, seed: int) -> dict[str, Message]:
    """Latents of the scene at one draw of its prior."""
    device = frames.device
    watch = Watch()
    with (
        torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
        torch.no_grad(),
        poutine.block(),
        watch,
        recording_plate(1, validated=False),
    ):
        torch.manual_seed(seed)
        scene.laws(frames)
    return {site["name"]: site for site in watch.sites if not site["is_observed"]}


def _compare(one: Mapping[str, Message], other: Mapping[str, Message]) -> None:
    changing = sorted(set(one) ^ set(other))
    if changing:
        raise ValueError(
            f"site {changing[0]!r} is there in some runs of the scene and not in others; expected "
            "the same sites whatever the others' values are. Sample it always, and choose with "
            "torch.where or a smooth weight."
        )
    for name, site in one.items():
        shapes = tuple(site["value"].shape), tuple(other[name]["value"].shape)
        if shapes[0] != shapes[1]:
            raise ValueError(
                f"site {name!r} has shape {shapes[0]} in one run of the scene and {shapes[1]} in "
                "another; expected one shape whatever the other latents are. Sample the largest, "
                "and mask what is not used."
            )
        if not _same_support(site["fn"].support, other[name]["fn"].support):
            raise ValueError(
                f"the support of {name!r} ({type(_base(site['fn'])).__name__}) depends on other "
                "latents; expected the same bounds always. Sample on fixed bounds, for instance "
                "Uniform(0.0, 1.0), and scale the value in the model."
            )


def _same_support(one: Any, other: Any) -> bool:
    """Whether two supports are of one kind with the same bounds."""
    while hasattr(one, "base_constraint") and hasattr(other, "base_constraint"):
        one, other = one.base_constraint, other.base_constraint
    return type(one) is type(other) and all(
        torch.equal(torch.as_tensor(getattr(one, bound)), torch.as_tensor(getattr(other, bound)))
        for bound in ("lower_bound", "upper_bound")
        if hasattr(one, bound)
    )
