"""Suitability: is a recording what the models describe, one talker in noise."""

from avse_ppl.evaluation.suitability.describe import describe_posterior, describe_signal
from avse_ppl.evaluation.suitability.judge import (
    SuitabilityModel,
    average_scores,
    doubt_recording,
    score_suitability,
)

__all__ = [
    "SuitabilityModel",
    "average_scores",
    "describe_posterior",
    "describe_signal",
    "doubt_recording",
    "score_suitability",
]
