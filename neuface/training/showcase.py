"""An image of an encoder's predictions: typical cases and the worst ones."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from neuface.encoders.predictor import Predictor
from neuface.head.model import HeadModel
from neuface.landmarks.schemes import IBUG68
from neuface.render.rasterize import vertices_to_px
from neuface.structs import ndc_to_px
from neuface.synthetic.training_pictures import TrainingPictures
from neuface.training.validation import rendered_nme_percent
from neuface.viz.draw import draw_label
from neuface.viz.overlay import contact_sheet, overlay_mesh, side_by_side

# Factor by which the pictures are enlarged.
ENLARGED = 2


def typical_and_worst(
    errors_percent: Float[Tensor, " n"], count: int
) -> tuple[Int[Tensor, " c"], Int[Tensor, " c"]]:
    """Indices at evenly spaced ranks of the error, best first, and of the largest errors, worst first."""
    order = errors_percent.argsort()
    count = min(count, len(order))
    ranks = torch.linspace(0, len(order) - 1, count + 2)[1:-1].round().long()
    return order[ranks], order.flip(0)[:count]


@torch.inference_mode()
def showcase(
    head: HeadModel, encoder: Predictor, pictures: TrainingPictures, count: int = 8
) -> UInt8[Tensor, "h w 3"]:
    """Two rows of typical cases above two rows of the worst, each picture beside the predicted mesh.

    The label is the error in percent of the outer-eye distance. Blue dots are predicted landmarks, red true ones.
    """
    errors = rendered_nme_percent(head, encoder, pictures)
    typical, worst = typical_and_worst(errors, count)
    cells = [
        _pair(head, encoder, pictures, int(index), float(errors[index]))
        for index in torch.cat((typical, worst))
    ]
    return contact_sheet(cells, max(1, len(typical) // 2))


def _pair(
    head: HeadModel, encoder: Predictor, pictures: TrainingPictures, index: int, error_percent: float
) -> UInt8[Tensor, "h w 3"]:
    shown = pictures[index : index + 1]
    prediction, truth = encoder(shown.pictures.to(head.template) / 255), shown.truth(head)
    frame = shown.pictures[0].permute(1, 2, 0).repeat_interleave(ENLARGED, 0).repeat_interleave(ENLARGED, 1)
    side_px = frame.shape[0]
    vertices = vertices_to_px(prediction.camera.to_image(head.vertices(prediction.params)), side_px)[0]
    points, true_points = (
        ndc_to_px(item.camera.project(head.landmarks(item.params, IBUG68.name)), side_px)[0]
        for item in (prediction, truth)
    )
    drawn = overlay_mesh(frame, vertices, head.faces, 0.7, points, true_points)
    return side_by_side([("", draw_label(frame, f"{error_percent:.1f} %")), ("", drawn)])
