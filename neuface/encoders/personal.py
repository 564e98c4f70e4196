"""An encoder that was fine-tuned on footage of one person, for more footage of the same person."""

from __future__ import annotations

from dataclasses import replace

from jaxtyping import Float
from torch import Tensor

from neuface.encoders.predictor import Predictor
from neuface.structs import Prediction

__all__ = ["PersonalEncoder"]


class PersonalEncoder(Predictor):
    """A fine-tuned encoder with the identity code that was fitted with it.

    Expression, pose and camera are the network's; the identity is the person's. A person of another size than the
    network believes is seen with another magnification, which a fit corrects by one factor.
    """

    def __init__(
        self,
        encoder: Predictor,
        identity: Float[Tensor, " identity"],
        magnification: Float[Tensor, ""],
    ) -> None:
        """`magnification` is the factor of all cameras that goes with the identity."""
        super().__init__()
        self.encoder = encoder
        self.input_px = encoder.input_px
        self.identity: Tensor
        self.magnification: Tensor
        self.register_buffer("identity", identity.detach().clone())
        self.register_buffer("magnification", magnification.detach().clone())

    def prepare(self, crops: Float[Tensor, "n 3 h w"]) -> Tensor:
        """As the encoder does."""
        return self.encoder.prepare(crops)

    def forward(self, inputs: Tensor) -> Prediction:
        """The encoder's predictions, as those of the person."""
        predicted = self.encoder(inputs)
        params, camera = predicted.params, predicted.camera
        return Prediction(
            params=replace(params, identity=self.identity.expand_as(params.identity)),
            camera=camera.placed(camera.position, camera.magnification * self.magnification),
        )
