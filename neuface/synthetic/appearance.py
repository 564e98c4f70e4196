"""Procedural skin, lips, brows, hair, beard, eyes, glasses: colours for rendered heads.

Everything is painted in the coordinates of the template, so that it needs no texture files and follows the surface.
One `Look` describes a batch of people.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import grid_sample

from neuface.head.model import HeadModel
from neuface.structs import TensorStruct

# Parts that are painted with soft weights per vertex, in the order of the weights' columns.
PAINT_REGIONS = ("lips", "mouth_interior", "tongue", "eyeballs", "scalp", "brows", "beard", "eye_rims")
# Cosines of the angles from an eye's forward axis to the edges of its iris and its pupil.
IRIS_COSINE = 0.905
PUPIL_COSINE = 0.985
# Share of people with a cloth mask.
MASK_SHARE = 0.06


@dataclass(frozen=True, kw_only=True)
class Look(TensorStruct):
    """The look of a batch of heads: colours (linear RGB in 0..1), hair, clothes, glasses and masks.

    The fields `*_alpha` are opacities in 0..1; 0 leaves the part out.
    """

    skin: Float[Tensor, "b 3"]
    lips: Float[Tensor, "b 3"]
    hair: Float[Tensor, "b 3"]
    iris: Float[Tensor, "b 3"]
    brow_alpha: Float[Tensor, " b"]
    beard_alpha: Float[Tensor, " b"]
    hair_alpha: Float[Tensor, " b"]
    hairline: Float[Tensor, " b"]
    """Metres by which the hair starts lower than the scalp region does."""
    side_hair: Float[Tensor, " b"]
    """1 for long hair that covers the ears and the sides of the head, else 0."""
    side_line: Float[Tensor, "b 2"]
    """Distance from the middle of the face at which long hair begins, and its front edge along z; metres."""
    cloth: Float[Tensor, "b 3"]
    collar: Float[Tensor, " b"]
    """Height in the template, metres, up to which clothes cover the neck."""
    rim_alpha: Float[Tensor, " b"]
    """Opacity of lashes and eye make-up around the edges of the eyelids."""
    glasses_alpha: Float[Tensor, " b"]
    glasses_size: Float[Tensor, "b 3"]
    """Half width, half height and line width of each lens' frame, metres."""
    glasses_color: Float[Tensor, "b 3"]
    mask_alpha: Float[Tensor, " b"]
    """1 for a cloth over nose and mouth, else 0."""
    mask_color: Float[Tensor, "b 3"]
    mask_top: Float[Tensor, " b"]
    """Height of the cloth's upper edge on the nose below the eyes, metres."""
    teeth: Float[Tensor, "b 3"]
    teeth_alpha: Float[Tensor, " b"]
    noise: Float[Tensor, "b 4 h w"]
    """Smooth random fields over the unrolled head: three for the colour, one for the hair."""
    noise_gain: Float[Tensor, " b"]


class Painter:
    """The position of every painted part on a head model, and the colours of surface points (`albedo`)."""

    def __init__(self, head: HeadModel) -> None:
        self.template = head.template
        self.eyes = head.joint_template[3:5]
        self.per_vertex = torch.cat((head.template, self._weights(head)), dim=-1)
        """(vertices, 3 + len(PAINT_REGIONS)): positions and weights, interpolated over the image for `albedo`."""

    def _weights(self, head: HeadModel) -> Float[Tensor, "vertices paints"]:
        columns = [head.regions[name].float() for name in PAINT_REGIONS[:5]]
        x, y, z = (head.template - self.eyes.mean(0)).unbind(-1)
        skin = ~(head.regions["eyeballs"] | head.regions["tongue"] | head.regions["mouth_interior"])
        outer = (skin & ~head.regions["ears"]).float()
        # A brow is an arc over the eye, higher in the middle than at its ends.
        along = (x.abs() - 0.031) / 0.024
        arc = 0.0205 - 0.004 * along.square() - 0.002 * along
        brows = torch.exp(-(((y - arc) / 0.0042) ** 2)) * torch.sigmoid((1 - along.abs()) * 12) * outer
        # The beard extends from below the nose to under the chin, and up the cheeks towards the ears.
        edge = -0.040 - 0.55 * (0.05 - z.abs()).clamp(min=0) + 0.35 * (x.abs() - 0.045).clamp(min=0)
        beard = torch.sigmoid((edge - y) / 0.003) * torch.sigmoid((y + 0.115) / 0.006)
        beard = beard * torch.sigmoid((z + 0.095) / 0.006) * outer * (1 - columns[0])
        rims = head.regions["eye_rims"].float()
        return torch.stack((*columns, brows, beard, rims), dim=-1)

    def albedo(
        self, surface: Float[Tensor, "b h w attributes"], look: Look
    ) -> tuple[Float[Tensor, "b h w 3"], Float[Tensor, "b h w 1"]]:
        """Colour (linear RGB in 0..1) and gloss of surface points from interpolated `per_vertex` attributes."""
        points, paint = surface[..., :3], surface[..., 3:, None].unbind(-2)
        lips, mouth, tongue, eyeball, scalp, brows, beard, rims = paint
        fields = _unrolled(points, look.noise)
        mottle = 1 + fields[..., :3] * _wide(look.noise_gain)
        strands = 1 + 0.5 * fields[..., 3:]
        color = _wide(look.skin) * mottle
        color = _mix(color, _wide(look.lips) * mottle, lips)
        color = _mix(color, color * 0.35, rims * _wide(look.rim_alpha))
        hair = _wide(look.hair) * strands
        # Brows and beards are seldom lighter than the skin, even of people with grey or blond hair.
        dark = torch.minimum(hair, color * 0.75)
        color = _mix(color, dark, (beard * _wide(look.beard_alpha) * strands).clamp(0, 1))
        color = _mix(color, dark, (brows * _wide(look.brow_alpha) * strands).clamp(0, 1))
        x, y, z = points.split(1, dim=-1)
        line = scalp + torch.sigmoid((y - 0.075 + _wide(look.hairline)) / 0.004)
        begin, front = (part[:, None, None, None] for part in look.side_line.unbind(-1))
        # Long hair falls outwards: the gap between its sides is wider at the chin than at the forehead.
        begin = begin + 0.06 * (self.eyes.mean(0)[1] - y).clamp(min=0)
        sides = torch.sigmoid((x.abs() - begin) / 0.002) * torch.sigmoid((front - z) / 0.003)
        line = line + sides * _wide(look.side_hair)
        color = _mix(color, hair, (line.clamp(0, 1) * _wide(look.hair_alpha)).clamp(0, 1))
        color = _mix(color, _wide(look.cloth), torch.sigmoid((_wide(look.collar) - y) / 0.002))
        color = _mix(color, color.new_tensor((0.16, 0.05, 0.05)), mouth)
        color = _mix(color, color.new_tensor((0.45, 0.19, 0.18)), tongue)
        # The mesh has no teeth. The front of the tongue, which is visible between the lips, is painted as teeth.
        color = _mix(
            color, _wide(look.teeth), tongue * torch.sigmoid((z - 0.108) / 0.002) * _wide(look.teeth_alpha)
        )
        color = _mix(color, self._eye_color(points, look), (eyeball > 0.5).float())
        color = _mix(color, _wide(look.mask_color), self._mask(points, look))
        frames = self._glasses(points, look)
        color = _mix(color, _wide(look.glasses_color), frames)
        gloss = 0.25 + 0.5 * lips + 0.75 * eyeball - 0.2 * line.clamp(0, 1)
        return color.clamp(0, 1), gloss.clamp(min=0)

    def _eye_color(self, points: Tensor, look: Look) -> Tensor:
        side = (points[..., :1] < 0).long()[..., 0]
        gaze = torch.nn.functional.normalize(points - self.eyes[side], dim=-1)[..., 2:3]
        white = points.new_tensor((0.80, 0.76, 0.74)).expand_as(points)
        color = torch.where(gaze > IRIS_COSINE, _wide(look.iris), white)
        return torch.where(gaze > PUPIL_COSINE, torch.full_like(color, 0.02), color)

    def _mask(self, points: Tensor, look: Look) -> Tensor:
        """A cloth from the nose to under the chin, with bands towards the ears."""
        x, y, z = (points - self.eyes.mean(0)).split(1, dim=-1)
        top = -_wide(look.mask_top) - 0.16 * x.abs()
        cloth = torch.sigmoid((top - y) / 0.0008) * torch.sigmoid((y + 0.125) / 0.002)
        cloth = cloth * torch.sigmoid((z + 0.062) / 0.002)
        bands = ((y - top + 0.004).abs() < 0.002) | ((y + 0.088 - 0.5 * (x.abs() - 0.05)).abs() < 0.002)
        bands = bands.float() * (x.abs() > 0.05).float() * (z > -0.10).float()
        return torch.maximum(cloth, bands) * _wide(look.mask_alpha)

    def _glasses(self, points: Tensor, look: Look) -> Tensor:
        half_width, half_height, line = (part[:, None, None, None] for part in look.glasses_size.unbind(-1))
        centre = self.eyes.mean(0) - points.new_tensor((0.0, 0.004, 0.0))
        x, y, z = (points - centre).split(1, dim=-1)
        across = (x.abs() - self.eyes[0, 0] * 1.08) / half_width
        # The lens is a rounded rectangle: on its outline the fourth-power norm is one.
        ring = (across.pow(4) + (y / half_height).pow(4)).clamp(min=1e-9).pow(0.25)
        on_ring = ((ring - 1).abs() * half_height < line).float()
        bridge = ((y - 0.004).abs() < line).float() * (x.abs() < self.eyes[0, 0] * 1.08 - half_width).float()
        temple = ((y - 0.006).abs() < line).float() * (across > 1).float() * (z > -0.09).float()
        in_front = (z > -0.03).float()
        return torch.maximum(torch.maximum(on_ring, bridge) * in_front, temple) * _wide(look.glasses_alpha)


def random_looks(generator: torch.Generator, count: int, *, plain: bool = False) -> Look:
    """Random looks. `plain` leaves out glasses, beards, hair, clothes and masks, for measuring landmarks."""

    def uniform(low: int | float, high: int | float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(count, *shape, generator=generator)

    def chance(share: float) -> Tensor:
        return (torch.rand(count, generator=generator) < share).float()

    light, dark = torch.tensor((0.86, 0.66, 0.55)), torch.tensor((0.26, 0.15, 0.10))
    tone = uniform(0, 1, 1) ** 1.3
    skin = (light + (dark - light) * tone) * (1 + uniform(-0.04, 0.04, 3))
    red = torch.tensor((0.92, 0.62, 0.62)) * uniform(0.75, 1.1, 1)
    brown, grey = torch.tensor((0.23, 0.14, 0.08)), torch.tensor((0.45, 0.43, 0.41))
    kind = torch.rand(count, 1, generator=generator)
    blond = torch.tensor((0.55, 0.40, 0.22))
    hair = torch.where(kind < 0.6, brown * uniform(0.15, 1.2, 1), torch.where(kind < 0.85, blond, grey))
    iris = torch.tensor((0.20, 0.13, 0.08)) * uniform(0.4, 1.6, 1) + uniform(0, 0.12, 3)
    dressed = 0.0 if plain else 1.0
    return Look(
        skin=skin.clamp(0.03, 0.95),
        lips=(skin * red).clamp(0.03, 0.9),
        hair=hair * uniform(0.8, 1.2, 1),
        iris=iris,
        brow_alpha=uniform(0.35, 1.0),
        beard_alpha=chance(0.3) * uniform(0.15, 1.0) * dressed,
        hair_alpha=chance(0.85) * uniform(0.8, 1.0) * dressed,
        hairline=uniform(-0.02, 0.03) * dressed - 0.05 * (1 - dressed),
        side_hair=chance(0.35) * dressed,
        side_line=torch.stack((uniform(0.050, 0.070), uniform(0.065, 0.105)), -1),
        mask_alpha=chance(MASK_SHARE) * dressed,
        mask_color=(uniform(0.02, 0.9, 1) + uniform(-0.1, 0.15, 3)).clamp(0.01, 0.95),
        mask_top=uniform(0.005, 0.022),
        cloth=(uniform(0, 0.9, 1) + uniform(-0.15, 0.15, 3)).clamp(0.01, 0.95),
        collar=-0.20 + chance(0.6) * uniform(0.06, 0.11) * dressed,
        rim_alpha=uniform(0.2, 0.9),
        glasses_alpha=chance(0.25) * uniform(0.6, 1.0) * dressed,
        glasses_size=torch.stack((uniform(0.021, 0.027), uniform(0.014, 0.023), uniform(0.0008, 0.003)), -1),
        glasses_color=uniform(0.0, 0.35, 1) * (1 + uniform(-0.2, 0.6, 3)),
        teeth=uniform(0.25, 0.85, 1) * torch.tensor((1.0, 0.95, 0.85)),
        teeth_alpha=chance(0.6),
        noise=smooth_noise(generator, count, 4, 96),
        noise_gain=uniform(0.02, 0.11),
    )


def smooth_noise(
    generator: torch.Generator, count: int, channels: int, size: int
) -> Float[Tensor, "b c s s"]:
    """Random fields with components of several spatial frequencies, with a variance of about 1."""
    total = torch.zeros(count, channels, size, size)
    for cells, gain in ((4, 0.6), (12, 0.5), (32, 0.4), (size, 0.35)):
        coarse = torch.randn(count, channels, cells, cells, generator=generator)
        total += gain * torch.nn.functional.interpolate(coarse, size=(size, size), mode="bilinear")
    return total


def _unrolled(points: Float[Tensor, "b h w 3"], fields: Float[Tensor, "b c s s"]) -> Float[Tensor, "b h w c"]:
    """Fields sampled by the angle around the head's vertical axis (across) and the height (down)."""
    angle = torch.atan2(points[..., 0], points[..., 2] - 0.05) / torch.pi
    height = points[..., 1] / 0.14
    grid = torch.stack((angle, height), dim=-1)
    return grid_sample(fields, grid, align_corners=False, padding_mode="border").permute(0, 2, 3, 1)


def _wide(value: Tensor) -> Tensor:
    """(b,) or (b, 3) to (b, 1, 1, c)."""
    return value[:, None, None, None] if value.ndim == 1 else value[:, None, None, :]


def _mix(below: Tensor, above: Tensor, alpha: Tensor) -> Tensor:
    return below + (above - below) * alpha
