"""How wrong an encoder's predictions are on average: what a fit needs to weigh them against the landmarks."""

from __future__ import annotations

import math
from dataclasses import dataclass

from neuface.errors import InputError

__all__ = ["OPEN_ENCODER", "UNCALIBRATED", "EncoderCalibration"]


@dataclass(frozen=True, kw_only=True)
class EncoderCalibration:
    """The errors of one encoder, measured on people whose true parameters are known.

    Raises InputError for a share that is not positive and finite.

    >>> EncoderCalibration(size_error_share=0.62).size_precision
    1.6129032258064517
    """

    size_error_share: float
    """Variance of the error of the predicted log size of a face, divided by the variance of log size over people.

    At 1 a prediction constrains the size no more than the population does; towards 0 it determines the size."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.size_error_share) and self.size_error_share > 0):
            raise InputError(
                "size_error_share: expected a positive number (1 for an encoder that knows nothing about the size of "
                f"a face), got {self.size_error_share}"
            )

    @property
    def size_precision(self) -> float:
        """Precision of the predicted size, in units of the inverse variance of log size over people."""
        return 1 / self.size_error_share


OPEN_ENCODER = EncoderCalibration(size_error_share=0.62)
"""The open encoder's: on 2,000 rendered people, its error of log size has a standard deviation of 3.0 %, and log size
itself one of 3.8 %; 0.62 is the ratio of the variances."""

UNCALIBRATED = EncoderCalibration(size_error_share=1.0)
"""For an encoder whose error of size has not been measured.

The size of the face is then as uncertain about the encoder's mean prediction as every other coefficient of the
identity code, whose prior has the population's variance: the choice that trusts the encoder least."""
