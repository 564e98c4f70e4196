"""The training loss of the open encoder: on pictures with known truth, and on real frames with landmarks only."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from neuface import losses
from neuface.encoders.open_encoder import OpenEncoder, anchor_centre
from neuface.geometry.rotations import rotation_angle_rad, rotvec_to_rotmat
from neuface.head.model import HeadModel
from neuface.landmarks.schemes import MEDIAPIPE478
from neuface.structs import HeadParams, Prediction, Scheme
from neuface.training.recordings import RecordedFrames

# Number of skin vertices that are compared besides the landmarks, and the seed of their choice.
EXTRA_VERTICES = 200
VERTEX_SEED = 7

# Weights of the parts of the loss on renders, chosen so that each weighted part is about one half late in training.
# Identity and expression are compared by squares: most expression units are at rest in most faces, so that an L1 loss
# would draw them to their median, zero, where the gradient of a sigmoid vanishes.
LOSS_WEIGHTS = {
    "image": 10.0,
    "shape_mm": 1.0,
    "rotation_rad": 1.0,
    "centre": 2.0,
    "log_scale": 1.0,
    "identity_squared": 1.0,
    "expression_squared": 60.0,
}
# Weights of the parts of the loss on real frames. The two priors keep what landmarks do not determine near the
# population of the renders.
FOOTAGE_WEIGHTS = {
    "footage_image": 10.0,
    "footage_closure": 10.0,
    "footage_consistency": 0.3,
    "footage_identity_prior": 0.05,
    "footage_expression_prior": 2.0,
}
# Upper and lower points of the eyelids and of the inner lips, iBUG-68.
CLOSING_PAIRS_IBUG68 = ((37, 41), (38, 40), (43, 47), (44, 46), (61, 67), (62, 66), (63, 65))


class Supervision:
    """Compares predictions with the truth at the dense face landmarks and at vertices over the whole skin."""

    def __init__(self, head: HeadModel) -> None:
        self.head = head
        skin = head.regions["skin"].nonzero()[:, 0]
        order = torch.randperm(len(skin), generator=torch.Generator().manual_seed(VERTEX_SEED))
        chosen = skin[order[:EXTRA_VERTICES].to(skin.device)]
        self.sparse = replace(
            head,
            template=head.template[chosen],
            identity_basis=head.identity_basis[chosen],
            expression_basis=head.expression_basis[chosen],
            skinning_weights=head.skinning_weights[chosen],
            regions={},
            embeddings={},
        )

    def points(self, params: HeadParams) -> Float[Tensor, "n points 3"]:
        """The compared points of unposed heads, metres; sliding landmarks are those of the frontal view."""
        unposed = params.unposed()
        return torch.cat(
            (self.head.landmarks(unposed, MEDIAPIPE478.name), self.sparse.vertices(unposed)), dim=-2
        )

    def parts(
        self, encoder: OpenEncoder, prediction: Prediction, truth: Prediction
    ) -> dict[str, Float[Tensor, ""]]:
        """The parts of the loss by name, in the units of LOSS_WEIGHTS; image distances are in crop NDC."""
        points, true_points = self.points(prediction.params), self.points(truth.params)
        seen = prediction.camera.project(self._posed(points, prediction.params))
        truly_seen = truth.camera.project(self._posed(true_points, truth.params))
        centre, true_centre = (
            anchor_centre(item.camera, encoder.posed_anchor(item.params.identity, item.params.root_rotvec))
            for item in (prediction, truth)
        )
        rotvecs = prediction.params.root_rotvec, truth.params.root_rotvec
        return {
            "image": (seen - truly_seen).abs().mean(),
            "shape_mm": 1000 * (points - true_points).abs().mean(),
            "rotation_rad": rotation_angle_rad(*rotvecs).mean(),
            "centre": (centre - true_centre).abs().mean(),
            "log_scale": (prediction.camera.magnification / truth.camera.magnification).log().abs().mean(),
            "identity_squared": (prediction.params.identity - truth.params.identity).square().mean(),
            "expression_squared": (prediction.params.expression - truth.params.expression).square().mean(),
        }

    def footage_parts(self, prediction: Prediction, frames: RecordedFrames) -> dict[str, Float[Tensor, ""]]:
        """The parts of the loss for real frames, of which only landmarks are known (as in DECA's coarse stage).

        They are the landmarks; the opening of eyes and lips, which does not depend on the head's position; agreement
        of the identity within each person; and two weak priors. Image distances are in crop NDC.
        """
        seen = prediction.camera.project(self.head.landmarks(prediction.params, frames.scheme.name))
        observed = frames.points_ndc, frames.confidence
        identity = prediction.params.identity
        return {
            "footage_image": losses.landmark_loss(seen, *observed).mean() / 2,
            "footage_closure": _closure_loss(seen, *observed, frames.scheme),
            "footage_consistency": _spread_within(identity, frames.person),
            "footage_identity_prior": losses.identity_prior(identity, torch.zeros_like(identity[0])).mean(),
            "footage_expression_prior": losses.expression_prior(prediction.params.expression).mean(),
        }

    def _posed(self, points: Tensor, params: HeadParams) -> Tensor:
        joint = self.head.joints(params)[..., :1, :]
        return (points - joint) @ rotvec_to_rotmat(params.root_rotvec).mT + joint


def total_loss(parts: dict[str, Float[Tensor, ""]]) -> Float[Tensor, ""]:
    """The weighted sum of the named parts."""
    weights = LOSS_WEIGHTS | FOOTAGE_WEIGHTS
    return torch.stack([weights[name] * part for name, part in parts.items()]).sum()


def _closure_loss(
    seen: Float[Tensor, "n points 2"],
    observed: Float[Tensor, "n points 2"],
    confidence: Float[Tensor, "n points"],
    scheme: Scheme,
) -> Float[Tensor, ""]:
    """L1 distance between the predicted and the observed vector from lower to upper eyelid and lip."""
    pairs = torch.tensor(CLOSING_PAIRS_IBUG68, device=seen.device)
    upper, lower = torch.tensor(scheme.to_ibug68, device=seen.device)[pairs].unbind(-1)
    opening, observed_opening = seen[:, upper] - seen[:, lower], observed[:, upper] - observed[:, lower]
    weight = torch.minimum(confidence[:, upper], confidence[:, lower])
    return losses.landmark_loss(opening, observed_opening, weight).mean() / 2


def _spread_within(identity: Float[Tensor, "n identity"], person: Int[Tensor, " n"]) -> Float[Tensor, ""]:
    """Mean squared distance of the identity codes from their person's mean."""
    member = (person[:, None] == person[None]).to(identity)
    mean = (member @ identity) / member.sum(-1, keepdim=True)
    return (identity - mean).square().mean()
