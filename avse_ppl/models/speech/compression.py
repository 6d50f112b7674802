"""Amplitude compression of complex spectrograms for score priors, with exact moments."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from avse_ppl.distributions.complex_normal import ComplexNormal

_TINY = 1e-20  # of a power: where the phase of a bin that is exactly 0 is taken to be 0
_ROOT = math.gamma(2.5)


@dataclass(frozen=True)
class Compression:
    r"""Amplitude to a power, phase kept: :math:`c = |s|^p e^{i \angle s}`.

    Compressed, loud and faint parts of speech differ less, so that one Gaussian noise blurs both.

    Parameters
    ----------
    exponent
        p: 0.5, or 1 for none.

    Raises
    ------
    ValueError
        If it is neither: the moments below are known for these two.

    References
    ----------
    Welker, Richter and Gerkmann, "Speech enhancement with score-based generative models in the
    complex STFT domain", Interspeech 2022.

    Examples
    --------
    >>> root = Compression()
    >>> root.compress(torch.tensor([4j])), root.expand(torch.tensor([2j]))
    (tensor([0.+2.j]), tensor([0.+4.j]))
    """

    exponent: float = 0.5

    def __post_init__(self) -> None:
        if self.exponent not in (0.5, 1.0):
            raise ValueError(f"the exponent of a compression is 0.5 or 1, not {self.exponent!r}")

    def compress(self, speech: Tensor) -> Tensor:
        """Complex values of any shape, compressed."""
        if self.exponent == 1.0:
            return speech
        power = speech.real.square() + speech.imag.square()
        return speech * power.clamp_min(_TINY).pow(-0.25)

    def expand(self, compressed: Tensor) -> Tensor:
        """Undo `compress`."""
        if self.exponent == 1.0:
            return compressed
        return compressed * compressed.abs()

    def law(self, mean: Tensor, variance: Tensor) -> ComplexNormal:
        r"""Complex Gaussian with the first two moments of what :math:`N_c(m, v)` expands to.

        For p = 1/2 with :math:`r = |m|^2 / v`, from the moments of a Rice distribution,

        .. math:: E\, c|c| = m \sqrt v\, \Gamma(\tfrac52)\; {}_1F_1(-\tfrac12; 2; -r), \qquad
            E |c|^4 = |m|^4 + 4 |m|^2 v + 2 v^2

        The moments are exact; that the law is Gaussian is the approximation.

        Parameters
        ----------
        mean, variance
            Of compressed speech, complex and real, one shape.
        """
        if self.exponent == 1.0:
            return ComplexNormal(mean, variance, validate_args=False)
        squared = mean.real.square() + mean.imag.square()
        expanded = mean * (_ROOT * variance.sqrt() * _hypergeometric(squared / variance))
        second = squared.square() + 4.0 * squared * variance + 2.0 * variance.square()
        power = second - (expanded.real.square() + expanded.imag.square())
        # Between their exact bounds, 4|m|^2 v of a sure bin is left of two far larger numbers.
        return ComplexNormal(
            expanded, torch.maximum(power, 2.0 * squared * variance), validate_args=False
        )


def _hypergeometric(ratio: Tensor) -> Tensor:
    """``1F1(-1/2; 2; -r)`` by Bessel functions that are scaled, so that no r overflows."""
    half = 0.5 * ratio
    zeroth, first = torch.special.i0e(half), torch.special.i1e(half)
    return (1.0 + 2.0 * ratio / 3.0) * zeroth + (1.0 + 2.0 * ratio) / 3.0 * first
