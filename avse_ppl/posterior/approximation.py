"""Kind of a posterior: the approximation that its draws stand for."""

from __future__ import annotations

from typing import Any, Literal

NoiseInference = Literal["joint", "sampled", "variational", "point estimate", "known"]
POINT_ESTIMATE = "point estimate"
_NOISE_TEXTS: dict[str, NoiseInference] = {
    "noise sampled": "sampled",
    "noise variational": "variational",
    "noise a point estimate": "point estimate",
    "noise known": "known",
}
_FIELDS = ("method", "noise", "tempering", "recalibrated", "ended_early", "amortised", "pooled")
_TEMPERED, _ENDED_EARLY, _RECALIBRATED = "tempered ", "ended early", "recalibrated"
_AMORTISED = "amortised prior"
_POOLED = "pooled with a predictor"


class Approximation(str):
    """Approximation behind the draws of a posterior; its text flags anything but exact inference.

    It is the text, so that it prints, compares and stores as one; code decides on the fields.

    Parameters
    ----------
    method
        ``"exact"``, ``"variational"``, ``"point estimate"``, ``"NUTS"``, or what else it is.
    noise
        How the noise latents were inferred: ``"joint"``, together with and in the same way as those
        of speech; ``"sampled"``, ``"variational"`` or ``"point estimate"``, in a way of their own;
        ``"known"``, there were none.
    tempering
        Power of the likelihood.
    recalibrated
        Whether variance and draws were rescaled afterwards.
    ended_early
        Whether the run was interrupted, or came to its time limit.
    amortised
        Whether the encoder of the speech prior measured its latents, see
        `avse_ppl.models.speech.latent.LatentSpeech`.
    pooled
        Whether what a predictor made of the mixture counts beside it, see
        `avse_ppl.models.predictors.predictor.Predictor`.

    Examples
    --------
    >>> kind = Approximation("Langevin", noise="point estimate", tempering=0.25)
    >>> print(kind)
    Langevin, noise a point estimate, tempered 0.25
    >>> kind == "Langevin, noise a point estimate, tempered 0.25", kind.noise, kind.tempering
    (True, 'point estimate', 0.25)
    >>> Approximation.parse("variational, structured guide, recalibrated").method
    'variational, structured guide'
    """

    method: str
    noise: NoiseInference
    tempering: float
    recalibrated: bool
    ended_early: bool
    amortised: bool
    pooled: bool

    def __new__(
        cls,
        method: str,
        noise: NoiseInference = "joint",
        tempering: float = 1.0,
        recalibrated: bool = False,
        ended_early: bool = False,
        amortised: bool = False,
        pooled: bool = False,
    ) -> Approximation:
        """Write the text."""
        parts = [method]
        parts += [text for text, name in _NOISE_TEXTS.items() if name == noise]
        parts += [_AMORTISED] if amortised else []
        parts += [_POOLED] if pooled else []
        parts += [f"{_TEMPERED}{tempering:g}"] if tempering != 1.0 else []
        parts += [_ENDED_EARLY] if ended_early else []
        parts += [_RECALIBRATED] if recalibrated else []
        self = super().__new__(cls, ", ".join(parts))
        self.method, self.noise = method, noise
        self.tempering, self.recalibrated = tempering, recalibrated
        self.ended_early, self.amortised, self.pooled = ended_early, amortised, pooled
        return self

    def __getnewargs__(self) -> tuple[Any, ...]:
        return tuple(getattr(self, name) for name in _FIELDS)

    @property
    def has_point_estimate(self) -> bool:
        """Whether some latents are one value, of which nothing says how well it is known."""
        return POINT_ESTIMATE in (self.method, self.noise)

    def with_fields(self, **changes: Any) -> Approximation:
        """Return the same with other fields.

        Examples
        --------
        >>> Approximation("NUTS").with_fields(tempering=0.5)
        'NUTS, tempered 0.5'
        """
        fields = {name: getattr(self, name) for name in _FIELDS}
        return Approximation(**{**fields, **changes})

    @classmethod
    def parse(cls, text: str) -> Approximation:
        """Fields from the text, as a file keeps it; the inverse of ``str``."""
        if isinstance(text, Approximation):
            return text
        parts, fields = text.split(", "), {}
        if len(parts) > 1 and parts[-1] == _RECALIBRATED:
            fields["recalibrated"] = bool(parts.pop())
        if len(parts) > 1 and parts[-1] == _ENDED_EARLY:
            fields["ended_early"] = bool(parts.pop())
        if len(parts) > 1 and parts[-1].startswith(_TEMPERED):
            fields["tempering"] = float(parts.pop().removeprefix(_TEMPERED))
        if len(parts) > 1 and parts[-1] == _POOLED:
            fields["pooled"] = bool(parts.pop())
        if len(parts) > 1 and parts[-1] == _AMORTISED:
            fields["amortised"] = bool(parts.pop())
        if len(parts) > 1 and parts[-1] in _NOISE_TEXTS:
            fields["noise"] = _NOISE_TEXTS[parts.pop()]
        return cls(", ".join(parts), **fields)
