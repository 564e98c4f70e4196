"""What all images of a clip have in common: one person, hence one identity code, of a size that no camera tells."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from neuface.fitting.config import FitConfig
from neuface.head.model import HeadModel
from neuface.structs import Prediction


@dataclass(frozen=True, kw_only=True)
class ClipShape:
    """Makes the answers for single images those for one person; `FitConfig` says how far.

    With `identity_per="clip"` every image gets the mean identity code of the images with landmarks, with "first" that
    of the first image with landmarks. With `hold_size`, codes are moved along the direction in which the face grows
    (the shortest way, hence the most probable one) until its size is the expected one: before a weak-perspective
    camera a large head far away and a small one nearby are the same picture, so a fit could only let it drift.
    """

    identity_per: str
    valid: Bool[Tensor, "views time"]
    growth: Float[Tensor, " identity"]
    """Change of the logarithm of the face's size per unit of every coefficient."""
    log_size: Float[Tensor, ""] | None
    """The size to hold; None holds nothing."""
    expected: Float[Tensor, " identity"]
    """Where the identity prior pulls to."""
    shift: Float[Tensor, " identity"]
    """Added to all answers, so that the fit starts at `expected` where that is not the encoder's own."""
    magnification: Float[Tensor, ""]
    """Factor of all cameras, by which what `shift` makes larger is seen as large as before."""

    def of_clip(self, answer: Prediction) -> Prediction:
        """The whole clip's answers, batch axes `views time`, for one person."""
        identity = answer.params.identity
        if self.identity_per == "clip":
            identity = identity[self.valid].mean(0).expand_as(identity)
        elif self.identity_per == "first":
            identity = identity[self.valid][0].expand_as(identity)
        return self._with_identity(answer, self._of_person(identity))

    def of_images(
        self,
        answer: Prediction,
        index: Int[Tensor, " images"],
        last: Float[Tensor, "views time identity"],
    ) -> Prediction:
        """The answers for some images of the clip, with gradient, for one person.

        A shared code is the mean over the clip at the last E-step plus what the mean over these images has moved
        since; its gradient is that of their mean. The code of the first image is that of the first of these images,
        as in the released code, where the gradient reaches one image of every chunk.

        Args:
            index: which images of the flattened (views, time) clip these are.
            last: the codes of all images at the last E-step, as answered.
        """
        identity = answer.params.identity
        counted = self.valid.flatten()[index]
        if self.identity_per == "image":
            return self._with_identity(answer, self._of_person(identity))
        if self.identity_per == "first":
            first = identity[counted][0] if bool(counted.any()) else last[self.valid][0]
            return self._with_identity(answer, self._of_person(first).expand_as(identity))
        shared = last[self.valid].mean(0)
        if bool(counted.any()):
            shared = shared + identity[counted].mean(0) - last.flatten(0, 1)[index][counted].mean(0)
        return self._with_identity(answer, self._of_person(shared).expand_as(identity))

    def _with_identity(self, answer: Prediction, identity: Tensor) -> Prediction:
        camera = answer.camera.placed(
            answer.camera.position, answer.camera.magnification * self.magnification
        )
        return Prediction(params=replace(answer.params, identity=identity), camera=camera)

    def _of_person(self, identity: Float[Tensor, "*batch identity"]) -> Float[Tensor, "*batch identity"]:
        identity = identity + self.shift
        if self.log_size is None:
            return identity
        missing = self.log_size - identity @ self.growth
        return identity + missing[..., None] * (self.growth / self.growth.square().sum())


def clip_shape(
    head: HeadModel,
    initial: Prediction,
    valid: Bool[Tensor, "views time"],
    config: FitConfig,
    expected: Float[Tensor, " identity"] | None = None,
) -> ClipShape:
    """What the images of this clip share, by the pretrained encoder's answers, batch axes `views time`.

    Args:
        expected: the most probable code of the person; None is what `config.expected_identity` says without
            landmarks, the mean of the answers or the population's.
    """
    mean = initial.params.identity[valid].mean(0)
    held = mean if expected is None else expected
    growth = head.log_size(torch.eye(len(mean)).to(mean))
    answered = initial.params.identity[valid][0] if config.identity_per == "first" else mean
    shift = torch.zeros_like(mean) if expected is None else expected - answered
    if expected is None:
        expected = torch.zeros_like(mean) if config.expected_identity == "population" else mean
    return ClipShape(
        identity_per=config.identity_per,
        valid=valid,
        growth=growth,
        log_size=held @ growth if config.hold_size and bool(growth.any()) else None,
        expected=expected,
        shift=shift,
        magnification=torch.exp(-shift @ growth),
    )
