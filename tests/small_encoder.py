"""The open encoder's network, small enough that a step of training takes a hundredth of a second."""

from __future__ import annotations

from neuface.encoders.open_encoder import OpenEncoderConfig

# Widths are multiples of 8. Below, oneDNN 3.12 (torch 2.13, AVX2) writes past its buffers in the backward pass of
# 1 x 1 convolutions with stride 2 and channels-last memory; the process ends with "double free or corruption".
SMALL_WIDTHS = (8, 8, 16, 16)
SMALL_ENCODER = OpenEncoderConfig(widths=SMALL_WIDTHS, reduced_channels=8, hidden=16)
