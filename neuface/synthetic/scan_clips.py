"""Films of a textured scan that turns as a head does, with its landmarks as a detector would see them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import roma
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor
from torch.nn.functional import avg_pool2d, grid_sample, normalize

from neuface.geometry.meshes import vertex_normals
from neuface.io.scans import Scan
from neuface.landmarks.schemes import GROUPS_IBUG68
from neuface.render import TorchRasterizer, interpolate, interpolate_corners, lambert, rasterize
from neuface.structs import WeakPerspective
from neuface.synthetic.backdrop import random_backgrounds
from neuface.synthetic.clips import head_motion

SCAN_SCALE = 6.0
"""Frame half-widths per metre: the face is about as large as in the synthetic clips."""
SUPERSAMPLE = 2
PICTURES_AT_ONCE = 4
# Normals of a scan are rough: a contour point's is the mean over this neighbourhood.
NORMAL_RADIUS_M = 0.01


def film_scan(
    scan: Scan,
    *,
    view_yaw_deg: Sequence[float],
    time: int,
    size_px: int,
    noise_px: float,
    seed: int,
) -> tuple[UInt8[Tensor, "views time s s 3"], Float[Tensor, "views time 68 2"]]:
    """Frames of the scan before synchronised cameras, and noisy landmarks in frame pixels.

    The scan has no expressions: it nods and turns as one. The cameras are orthographic, as the fit's are.
    A contour point whose surface is turned away is NaN: a detector would answer with a point of the visible outline
    in its stead, which the scan's landmarks do not know.

    Args:
        scan: facing the camera, see `upright`.
        view_yaw_deg: how far each camera is turned about the head, one per view.
        noise_px: standard deviation of the landmarks' noise in x and in y, new in every frame.
        seed: of motion, light, backdrop and noise.
    """
    generator = torch.Generator().manual_seed(seed)
    motion = head_motion(time, generator)
    centred = scan.landmarks - scan.landmarks.mean(0)
    middle = WeakPerspective(scale=torch.tensor(SCAN_SCALE), offset=torch.zeros(2))
    films, marks = [], []
    for yaw_deg in view_yaw_deg:
        camera_turn = torch.tensor((0.0, math.radians(yaw_deg), 0.0)).expand(time, 3)
        turn = roma.rotvec_to_rotmat(roma.rotvec_composition((camera_turn, motion)))
        films.append(_film(scan, turn, size_px, generator))
        ndc = middle.project(centred @ turn.mT)
        clean = (ndc + 1) * (size_px / 2) - 0.5
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
    """Pictures of the textured scan (colours times coverage), and the share of each pixel that it covers.

    Args:
        vertices_ndc: in crop NDC of the whole frame.
        toward_light: unit vector in camera axes.
        strength: how much of the light comes from there; the rest comes from everywhere.
    """
    fine = size_px * SUPERSAMPLE
    half = fine / 2
    pixels = vertices_ndc * half + vertices_ndc.new_tensor((half - 0.5, half - 0.5, 0.0))
    fragments = rasterize(pixels, scan.faces, (fine, fine), TorchRasterizer(cull_backfaces=True))
    uv = interpolate_corners(fragments, scan.uv[scan.uv_faces])
    # In the picture y runs down, in the texture up.
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
    """The texture, averaged down to about one texel per pixel: finer ones would flicker from frame to frame."""
    height, width = scan.texture.shape[:2]
    texels = scan.uv * scan.uv.new_tensor((width, height))
    flat = torch.nn.functional.pad(texels, (0, 1))
    ratio = _total_area(flat, scan.uv_faces) / _total_area(pixels[0], scan.faces)
    step = max(1, min(height, width, int(ratio.sqrt())))
    return avg_pool2d(scan.texture.permute(2, 0, 1)[None].float() / 255, step)


def _total_area(points: Float[Tensor, "points 3"], faces: Tensor) -> Float[Tensor, ""]:
    a, b, c = points[faces].unbind(1)
    return torch.linalg.vector_norm(torch.linalg.cross(b - a, c - a), dim=-1).sum() / 2


def _film(
    scan: Scan, turn: Float[Tensor, "time 3 3"], size_px: int, generator: torch.Generator
) -> UInt8[Tensor, "time s s 3"]:
    """One camera's frames: its own backdrop and a lamp of its own."""
    camera = WeakPerspective(scale=torch.tensor(SCAN_SCALE), offset=torch.zeros(2))
    backdrop = random_backgrounds(generator, 1, size_px)[0].permute(1, 2, 0)
    lamp = torch.randn(3, generator=generator) * torch.tensor((1.0, 0.6, 0.3)) + torch.tensor(
        (0.0, -0.4, -1.0)
    )
    strength = 0.2 + 0.4 * float(torch.rand((), generator=generator))
    exposure = 0.8 + 0.3 * float(torch.rand((), generator=generator))
    frames = []
    for some in turn.split(PICTURES_AT_ONCE):
        posed = (scan.vertices - scan.landmarks.mean(0)) @ some.mT
        picture, cover = paint_scan(scan, camera.to_image(posed), normalize(lamp, dim=0), strength, size_px)
        composed = exposure * picture + (1 - cover) * backdrop
        frames.append((composed * 255).round().clamp(0, 255).to(torch.uint8))
    return torch.cat(frames)


def _landmarks_shown(scan: Scan, turn: Float[Tensor, "time 3 3"]) -> Bool[Tensor, "time 68"]:
    """All landmarks but the contour points that face away from the camera."""
    near = torch.cdist(scan.landmarks, scan.vertices) < NORMAL_RADIUS_M
    facing = near.float() @ vertex_normals(scan.vertices, scan.faces)
    shown = (facing @ turn.mT)[..., 2] > 0
    shown[:, GROUPS_IBUG68["contour"].stop :] = True
    return shown
