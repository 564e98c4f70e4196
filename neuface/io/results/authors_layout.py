"""Results in the layout of NeuFace's released program: `params.npz` with cam, pose, expr, shapes and landmarks2d.

| array | shape | what it is |
|---|---|---|
| `cam` | (images, 3) | s, tx, ty: a point is seen at s (x + tx), -s (y + ty), from -1 to 1 over 224 crop pixels |
| `pose` | (images, 6) | rotation vectors of the root and the jaw, radians; neck and eyes are at rest |
| `expr` | (images, 50) | expression coefficients of FLAME 2020 |
| `shapes` | (images, 100) | identity coefficients of FLAME 2020 |
| `landmarks2d` | (images, 68, 2) | the landmarks that were fitted, 2 p / 224 - 1 of crop pixels p |

Images are ordered by time, then by view: image number `t * views + v`. The layout has no room for names, the frame
rate, where the crops lie in the frames, or which head model it is.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from neuface.encoders.flame_encoder import CROP_PX, camera_from_code, code_from_camera, flame_params
from neuface.errors import InputError
from neuface.head.versions import UNKNOWN_VERSION
from neuface.io.npz import read_arrays, write_arrays
from neuface.landmarks.schemes import IBUG68, to_ibug68
from neuface.structs import Crop, HeadParams, Prediction, Track

SHAPES = {"cam": (3,), "pose": (6,), "expr": (50,), "shapes": (100,), "landmarks2d": (68, 2)}
PARAMETERS = ("cam", "pose", "expr", "shapes")


@dataclass(frozen=True, kw_only=True)
class AuthorsResult:
    """What such a file holds, in this package's conventions."""

    prediction: Prediction
    """Batch axes `views time`; its cameras project to the pixels of the crops."""
    landmarks: Track
    """In the pixels of the crops, for the file does not say where those lie in the frames."""
    crops: Crop
    """The whole of each crop, as if it were the frame."""


def write_authors_result(
    path: str | os.PathLike[str], prediction: Prediction, landmarks: Track, crops: Crop, head_name: str
) -> None:
    """Write a fit of a FLAME model, such as the parts of a `FitResult`, in the authors' layout, float32.

    Landmarks that are missing are NaN.

    Args:
        path: the file, named `params.npz` by the authors.
        prediction, landmarks: of the same views and frames; cameras and landmarks in frame pixels.
        crops: the squares in whose coordinates the file has its numbers. Those of a fit are
            `neuface.model_inputs.model_inputs(clip, model).crops`.
        head_name: of the head model that the parameters belong to.

    Raises:
        InputError: another head than FLAME 2020, crops of another size than 224 px, or parameters that the layout
            has no room for: rotations of neck or eyes, further coefficients, eyelids.
    """
    if head_name not in ("flame2020", UNKNOWN_VERSION):
        raise InputError(
            f"these parameters belong to head model {head_name!r}; the authors' layout is for FLAME 2020, "
            "as with model='deca' or 'emoca'"
        )
    if crops.size_px != CROP_PX:
        raise InputError(
            f"the crops have {crops.size_px} px; the authors' layout is for crops of {CROP_PX} px"
        )
    params = prediction.params
    for name in ("neck_rotvec", "eyes_rotvec"):
        if bool(getattr(params, name).any()):
            raise InputError(f"{name} is not zero, and the authors' layout has no room for it")
    sparse = to_ibug68(landmarks)
    crop_px = crops.to_crop_px(sparse.points_px)
    missing = (sparse.confidence <= 0)[..., None]
    arrays = {
        "cam": code_from_camera(crops.camera_in_crop(prediction.camera)),
        "pose": torch.cat((params.root_rotvec, params.jaw_rotvec), -1),
        "expr": _cut(params, "expression", SHAPES["expr"][0]),
        "shapes": _cut(params, "identity", SHAPES["shapes"][0]),
        "landmarks2d": (crop_px * (2 / CROP_PX) - 1).masked_fill(missing, float("nan")),
    }
    images = {name: _by_image(tensor) for name, tensor in arrays.items()}
    bad = [name for name in PARAMETERS if not np.isfinite(images[name]).all()]
    if bad:
        raise InputError(f"{', '.join(bad)}: has numbers that are not finite; this result cannot be used")
    write_arrays(path, images)


def read_authors_result(path: str | os.PathLike[str], *, views: int = 1) -> AuthorsResult:
    """Read a file in the authors' layout. It does not hold the number of views, so `views` gives it.

    Raises InputError for a damaged file, missing, misshapen or infinite arrays, or views that do not fit.
    """
    arrays = read_arrays(path, tuple(SHAPES))
    missing = [name for name in SHAPES if name not in arrays]
    if missing:
        raise InputError(
            f"{path}: has no {', '.join(missing)}; expected {', '.join(SHAPES)} as the authors' program writes them"
        )
    images = arrays["cam"].shape[:1]
    for name, shape in SHAPES.items():
        array = arrays[name]
        if array.shape != (*images, *shape) or array.dtype.kind != "f":
            raise InputError(
                f"{path}: {name!r} has the shape {array.shape} and type {array.dtype}; expected floating-point "
                f"numbers (images, {', '.join(map(str, shape))})"
            )
        if name in PARAMETERS and not np.isfinite(array).all():
            raise InputError(f"{path}: {name!r} has numbers that are not finite")
    if views < 1 or not images[0] or images[0] % views:
        raise InputError(
            f"{path}: has {images[0]} images, which is not a multiple of {views} views; give the number of cameras"
        )
    cam, pose, expression, identity, points = (_by_view(arrays[name], views) for name in SHAPES)
    found = points.isfinite().all(-1)
    crops = Crop(T_crop_frame=torch.eye(3).to(points).expand(*found.shape[:2], 3, 3), size_px=CROP_PX)
    return AuthorsResult(
        prediction=Prediction(
            params=flame_params(
                identity=identity, expression=expression, root_rotvec=pose[..., :3], jaw_rotvec=pose[..., 3:]
            ),
            camera=crops.camera_in_frame(camera_from_code(cam)),
        ),
        landmarks=Track(
            points_px=torch.where(found[..., None], (points + 1) * (CROP_PX / 2), 0.0),
            confidence=found.to(points),
            scheme=IBUG68,
        ),
        crops=crops,
    )


def _cut(params: HeadParams, name: str, size: int) -> Float[Tensor, "views time size"]:
    """The first `size` coefficients, padded with zeros; InputError if a further one is not zero."""
    code = getattr(params, name)
    if bool(code[..., size:].any()):
        raise InputError(
            f"{name} has more than {size} coefficients that are not zero; the authors' layout has no room for them"
        )
    return torch.nn.functional.pad(code[..., :size], (0, max(0, size - code.shape[-1])))


def _by_image(tensor: Float[Tensor, "views time *rest"]) -> np.ndarray:
    return tensor.detach().cpu().transpose(0, 1).flatten(0, 1).float().numpy()


def _by_view(array: np.ndarray, views: int) -> Float[Tensor, "views time *rest"]:
    return torch.from_numpy(array).float().unflatten(0, (-1, views)).transpose(0, 1).contiguous()
