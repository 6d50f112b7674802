"""Pareto k-hat: distance of a guide from the posterior, by importance sampling."""

from __future__ import annotations

import torch

from avse_ppl.inference.core.log_density import LogDensity
from avse_ppl.inference.core.psis import psis
from avse_ppl.inference.core.setup import RandomStreams
from avse_ppl.inference.vi.guides import Guide

K_HAT_DRAWS = 25  # fewer leave no tail to fit a shape to
K_HAT_LIMIT = 0.7
# Latents up to which k-hat can tell a good guide from a bad one. Log ratios of n latents whose
# scales are off by a share e have a standard deviation of e sqrt(2 n), and k-hat passes up to about
# 2: 400 latents need scales that are right to 7 %, the thousands of a recording to 2 %, which no
# ascent on noisy gradients reaches. There it would be said of every recording, and tell nothing.
TELLING_LATENTS = 400


def compute_k_hat(
    density: LogDensity, guide: Guide, randoms: RandomStreams, draws: int, tempering: float = 1.0
) -> list[float]:
    r"""Shape of the upper tail of the importance ratios of a guide, for each recording.

    .. math:: \log r_d = w \log p(x | u_d) + \log p(u_d) - \log q(u_d), \quad u_d \sim q

    Parameters
    ----------
    density, guide
        p, and q.
    randoms
        For the draws.
    draws
        Their number, at least 25.
    tempering
        w, the power of the likelihood.

    Returns
    -------
    list of float
        0.5 and below: the guide is close; above 0.7: it is not. One for each recording.

    References
    ----------
    Yao, Vehtari, Simpson and Gelman, "Yes, but did it work?: evaluating variational inference",
    ICML 2018.
    """
    rows = []
    with torch.no_grad():
        for _ in range(draws):
            values = guide.draw(randoms)
            rows.append(density(values, tempering) - guide.log_density(values))
    log_ratios = torch.stack(rows, dim=1).double().cpu().numpy()
    return [round(float(k), 3) for k in psis(log_ratios)[1]]


def describe_k_hat(k_hat: float) -> str:
    """Warning that a guide is far from the posterior.

    Examples
    --------
    >>> describe_k_hat(0.81)
    "k-hat is 0.81, above 0.7: the guide is far from the posterior, ..."
    """
    return (
        f"k-hat is {k_hat:.2f}, above {K_HAT_LIMIT}: the guide is far from the posterior, and its "
        "intervals are not those of the model. Sample instead (inference 'nuts' or "
        "'numpyro-nuts'), or try the guide 'structured' or 'low-rank'"
    )
