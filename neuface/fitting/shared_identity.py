"""The identity code that all images of a clip share, and its size, which no camera determines."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from neuface.fitting.config import Identity
from neuface.fitting.objective import FromPopulation, IdentityPrior
from neuface.head.model import HeadModel
from neuface.structs import Prediction


@dataclass(frozen=True, kw_only=True)
class SharedIdentity:
    """Turns the predictions for single images into those for one person, as far as `Identity` says.

    With `shared="clip"` every image gets the mean identity code of the images with landmarks, with "first" that
    of the first image with landmarks. With `fix_scale`, codes are moved along the direction in which the size of the
    face changes (the shortest and hence most probable way) until the size is the prior's: a weak-perspective camera
    sees a large head far away and a small one nearby alike, so that the size would drift in a fit.
    """

    shared: str
    valid: Bool[Tensor, "views time"]
    size_direction: Float[Tensor, " identity"]
    """Change of the logarithm of the face's size per unit of every coefficient."""
    log_size: Float[Tensor, ""] | None
    """Logarithm of the size that is kept; None lets it change."""
    prior_mean: Float[Tensor, " identity"]
    """Mean of the identity prior."""
    shift: Float[Tensor, " identity"]
    """Added to all predicted codes, so that the fit starts at `prior_mean` where that is not the encoder's own."""
    magnification: Float[Tensor, ""]
    """Factor of all cameras that compensates for the change of size by `shift`."""

    def of_clip(self, prediction: Prediction) -> Prediction:
        """The predictions for the whole clip, batch axes `views time`, as those for one person."""
        identity = prediction.params.identity
        if self.shared == "image":
            return self._with_identity(prediction, self._of_person(identity))
        of_valid = identity[self.valid]
        shared = of_valid.mean(0) if self.shared == "clip" else of_valid[0]
        return self._with_identity(prediction, self._of_person(shared).expand_as(identity))

    def of_images(
        self,
        prediction: Prediction,
        index: Int[Tensor, " images"],
        last: Float[Tensor, "views time identity"],
    ) -> Prediction:
        """The predictions for some images of the clip, with gradient, as those for one person.

        A shared code is the mean over the clip at the last E-step plus what the mean over these images has moved
        since; its gradient is that of their mean. The code of the first image is that of the first of these images,
        as in the released code, where the gradient reaches one image of every chunk.

        Args:
            index: which images of the flattened (views, time) clip these are.
            last: the predicted codes of all images at the last E-step.
        """
        identity = prediction.params.identity
        counted = self.valid.flatten()[index]
        if self.shared == "image":
            return self._with_identity(prediction, self._of_person(identity))
        if self.shared == "first":
            first = identity[counted][0] if bool(counted.any()) else last[self.valid][0]
            return self._with_identity(prediction, self._of_person(first).expand_as(identity))
        shared = last[self.valid].mean(0)
        if bool(counted.any()):
            shared = shared + identity[counted].mean(0) - last.flatten(0, 1)[index][counted].mean(0)
        return self._with_identity(prediction, self._of_person(shared).expand_as(identity))

    def _with_identity(self, prediction: Prediction, identity: Tensor) -> Prediction:
        camera = prediction.camera.placed(
            prediction.camera.position, prediction.camera.magnification * self.magnification
        )
        return Prediction(params=replace(prediction.params, identity=identity), camera=camera)

    def _of_person(self, identity: Float[Tensor, "*batch identity"]) -> Float[Tensor, "*batch identity"]:
        identity = identity + self.shift
        if self.log_size is None:
            return identity
        missing = self.log_size - identity @ self.size_direction
        return identity + missing[..., None] * (self.size_direction / self.size_direction.square().sum())


def shared_identity(
    head: HeadModel,
    initial: Prediction,
    valid: Bool[Tensor, "views time"],
    identity: Identity,
    prior: IdentityPrior | None = None,
    expected: Float[Tensor, " identity"] | None = None,
) -> SharedIdentity:
    """The shared identity of a clip, from the pretrained encoder's predictions, batch axes `views time`.

    Args:
        expected: the most probable code given the landmarks. Without it the mean of the prior is that of the
            population for `FromPopulation`, else the mean of the predictions.
    """
    mean = initial.params.identity[valid].mean(0)
    size_reference = mean if expected is None else expected
    size_direction = head.log_size(torch.eye(len(mean)).to(mean))
    first_or_mean = initial.params.identity[valid][0] if identity.shared == "first" else mean
    shift = torch.zeros_like(mean) if expected is None else expected - first_or_mean
    if expected is None:
        expected = torch.zeros_like(mean) if isinstance(prior, FromPopulation) else mean
    return SharedIdentity(
        shared=identity.shared,
        valid=valid,
        size_direction=size_direction,
        log_size=size_reference @ size_direction
        if identity.fix_scale and bool(size_direction.any())
        else None,
        prior_mean=expected,
        shift=shift,
        magnification=torch.exp(-shift @ size_direction),
    )
