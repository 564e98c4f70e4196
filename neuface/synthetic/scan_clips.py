"""Rendered clips of a textured scan that moves like a head, with noisy landmarks."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor
from torch.nn.functional import avg_pool2d, grid_sample, normalize

from neuface.geometry.head_perspective import Perspective
from neuface.geometry.meshes import vertex_normals
from neuface.geometry.rotations import compose_rotvecs, rotvec_to_rotmat
from neuface.io.scans import Scan
from neuface.landmarks.schemes import INNER51
from neuface.render import (
    TorchRasterizer,
    interpolate,
    interpolate_corners,
    lambert,
    rasterize,
    vertices_to_px,
)
from neuface.structs import Camera, WeakPerspective, ndc_to_px
from neuface.synthetic.backdrop import random_backgrounds
from neuface.synthetic.clips import head_motion

SCAN_SCALE = 6.0
"""Frame half-widths per metre: the face is about as large as in the synthetic clips."""
# Samples per pixel along each side.
SUPERSAMPLE = 2
# Upper bound of the frames that are rendered at once.
FRAMES_PER_BATCH = 4
# Radius over which the normal of a contour point is averaged, because a scan's normals are noisy.
NORMAL_RADIUS_M = 0.01


def film_scan(
    scan: Scan,
    *,
    view_yaw_deg: Sequence[float],
    time: int,
    size_px: int,
    noise_px: float,
    distance_m: float | None = None,
    seed: int,
) -> tuple[UInt8[Tensor, "views time s s 3"], Float[Tensor, "views time 68 2"]]:
    """Frames of the scan in front of synchronised cameras, and noisy landmarks in frame pixels.

    The scan has no expressions and moves rigidly. A contour point
    is NaN if its surface faces away from the camera: a detector would place it on the visible outline, whose points
    are not among the scan's landmarks.

    Args:
        scan: facing the camera, see `upright`.
        view_yaw_deg: angle of each camera about the head, one per view.
        noise_px: standard deviation of the landmarks' white noise along x and along y.
        distance_m: between each camera and the middle of the landmarks, which stays on the optical axis; None is weak
            perspective. The scan has about the same size in the frame at every distance.
        seed: seed of motion, light, backdrop and noise.
    """
    generator = torch.Generator().manual_seed(seed)
    motion = head_motion(time, generator)
    centred = scan.landmarks - scan.landmarks.mean(0)
    camera = _camera(distance_m)
    films, marks = [], []
    for yaw_deg in view_yaw_deg:
        camera_turn = torch.tensor((0.0, math.radians(yaw_deg), 0.0)).expand(time, 3)
        turn = rotvec_to_rotmat(compose_rotvecs(camera_turn, motion))
        films.append(_film(scan, turn, camera, size_px, generator))
        clean = ndc_to_px(camera.project(centred @ turn.mT), size_px)
        noisy = clean + noise_px * torch.randn(clean.shape, generator=generator)
        marks.append(noisy.masked_fill(~_landmarks_shown(scan, turn)[..., None], torch.nan))
    return torch.stack(films), torch.stack(marks)


def paint_scan(
    scan: Scan,
    vertices_ndc: Float[Tensor, "b vertices 3"],
    toward_light: Float[Tensor, 3],
    strength: float,
    size_px: int,
) -> tuple[Float[Tensor, "b s s 3"], Float[Tensor, "b s s 1"]]:
    """Images of the textured scan (colours times coverage), and the share of each pixel that it covers.

    Args:
        vertices_ndc: in crop NDC of the whole frame.
        toward_light: unit vector in camera axes.
        strength: share of the light from that direction, 0..1; the rest is uniform.
    """
    fine = size_px * SUPERSAMPLE
    pixels = vertices_to_px(vertices_ndc, fine)
    fragments = rasterize(pixels, scan.faces, (fine, fine), TorchRasterizer(cull_backfaces=True))
    uv = interpolate_corners(fragments, scan.uv[scan.uv_faces])
    # The y axis points down in the image and up in the texture.
    grid = uv * uv.new_tensor((2.0, -2.0)) + uv.new_tensor((-1.0, 1.0))
    texture = texture_for(scan, pixels).expand(len(pixels), -1, -1, -1)
    color = grid_sample(texture, grid, align_corners=False, padding_mode="border").permute(0, 2, 3, 1)
    normals = normalize(interpolate(fragments, scan.faces, vertex_normals(pixels, scan.faces)), dim=-1)
    light = 1 - strength / 2 + strength * lambert(normals, toward_light, wrap=0.3)
    covered = fragments.mask[..., None].to(color.dtype)
    lit = (color * light[..., None]).clamp(0, 1) * covered
    coarse = avg_pool2d(torch.cat((lit, covered), -1).movedim(-1, 1), SUPERSAMPLE).movedim(1, -1)
    return coarse[..., :3], coarse[..., 3:]


def texture_for(scan: Scan, pixels: Float[Tensor, "b vertices 3"]) -> Float[Tensor, "1 3 h w"]:
    """The texture reduced to about one texel per pixel; finer textures would alias differently in every frame."""
    height, width = scan.texture.shape[:2]
    texels = scan.uv * scan.uv.new_tensor((width, height))
    flat = torch.nn.functional.pad(texels, (0, 1))
    ratio = _total_area(flat, scan.uv_faces) / _total_area(pixels[0], scan.faces)
    step = max(1, min(height, width, int(ratio.sqrt())))
    return avg_pool2d(scan.texture.permute(2, 0, 1)[None].float() / 255, step)


def _total_area(points: Float[Tensor, "points 3"], faces: Tensor) -> Float[Tensor, ""]:
    a, b, c = points[faces].unbind(1)
    return torch.linalg.vector_norm(torch.linalg.cross(b - a, c - a), dim=-1).sum() / 2


def _camera(distance_m: float | None) -> Camera:
    """A camera for the whole frame, in its half-widths, that looks at the head frame's origin."""
    scale, middle = torch.tensor(SCAN_SCALE), torch.zeros(2)
    if distance_m is None:
        return WeakPerspective(scale=scale, offset=middle)
    return Perspective(scale=scale, offset=middle, focal=scale * distance_m, principal=middle)


def _film(
    scan: Scan,
    turn: Float[Tensor, "time 3 3"],
    camera: Camera,
    size_px: int,
    generator: torch.Generator,
) -> UInt8[Tensor, "time s s 3"]:
    """The frames of one camera, with its own backdrop and lamp."""
    backdrop = random_backgrounds(generator, 1, size_px)[0].permute(1, 2, 0)
    lamp = torch.randn(3, generator=generator) * torch.tensor((1.0, 0.6, 0.3)) + torch.tensor(
        (0.0, -0.4, -1.0)
    )
    strength = 0.2 + 0.4 * float(torch.rand((), generator=generator))
    exposure = 0.8 + 0.3 * float(torch.rand((), generator=generator))
    frames = []
    for some in turn.split(FRAMES_PER_BATCH):
        posed = (scan.vertices - scan.landmarks.mean(0)) @ some.mT
        picture, cover = paint_scan(scan, camera.to_image(posed), normalize(lamp, dim=0), strength, size_px)
        composed = exposure * picture + (1 - cover) * backdrop
        frames.append((composed * 255).round().clamp(0, 255).to(torch.uint8))
    return torch.cat(frames)


def _landmarks_shown(scan: Scan, turn: Float[Tensor, "time 3 3"]) -> Bool[Tensor, "time 68"]:
    """Whether a landmark is reported: all but the contour points whose surface faces away from the camera."""
    near = torch.cdist(scan.landmarks, scan.vertices) < NORMAL_RADIUS_M
    facing = near.float() @ vertex_normals(scan.vertices, scan.faces)
    shown = (facing @ turn.mT)[..., 2] > 0
    shown[:, INNER51] = True
    return shown
