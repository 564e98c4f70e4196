"""EMOCA v1 and v2 (Danecek et al., CVPR 2022): DECA with a second network for the expression."""

from __future__ import annotations

from dataclasses import replace

from jaxtyping import Float
from torch import Tensor

from neuface.encoders.deca import CODE_SIZES, DecaEncoder, decode_flame_code
from neuface.encoders.flame_encoder import CodeLayout, FlameEncoder
from neuface.encoders.resnet50 import CodeNetwork
from neuface.errors import InputError
from neuface.structs import HeadParams, Prediction

EXPRESSION = DecaEncoder.layout.expression
TRAINABLE = ("both", "coarse", "expression")


class EmocaEncoder(FlameEncoder):
    """`E_flame` predicts shape, pose and camera, `E_expression` the expression and in some variants rotations.

    Args:
        jaw: whether the expression network also predicts the jaw's rotation.
        root: whether the expression network also predicts the root's rotation. It predicts neither in the released
            packages.
        trainable: the networks that a fit may change: `both`, `coarse` (E_flame) or `expression` (E_expression).

    Raises InputError for another `trainable`.
    """

    layout: CodeLayout = DecaEncoder.layout

    def __init__(self, *, jaw: bool = False, root: bool = False, trainable: str = "both") -> None:
        super().__init__()
        if trainable not in TRAINABLE:
            raise InputError(f"trainable: expected one of {', '.join(TRAINABLE)}, got {trainable!r}")
        self.jaw, self.root, self.trainable = jaw, root, trainable
        self.E_flame = CodeNetwork(sum(CODE_SIZES))
        self.E_expression = CodeNetwork(EXPRESSION + 3 * root + 3 * jaw)
        self.E_flame.requires_grad_(trainable != "expression")
        self.E_expression.requires_grad_(trainable != "coarse")

    def forward(self, inputs: Float[Tensor, "n 3 h w"]) -> Prediction:
        """Heads and cameras for prepared crops."""
        images = self.as_weights(inputs)
        coarse, camera = decode_flame_code(self.E_flame(images))
        return Prediction(params=self._merged(coarse, self.E_expression(images)), camera=camera)

    def _merged(self, coarse: HeadParams, code: Float[Tensor, "n outputs"]) -> HeadParams:
        """The coarse head with the expression network's predictions in place of the coarse ones."""
        expression, pose = code[:, :EXPRESSION], code[:, EXPRESSION:]
        params = replace(coarse, expression=expression)
        if self.root:
            params = replace(params, root_rotvec=pose[:, :3])
        if self.jaw:
            params = replace(params, jaw_rotvec=pose[:, -3:])
        return params


def pose_parts(outputs: int, *, jaw: bool | None, root: bool | None) -> tuple[bool, bool]:
    """Whether the expression network predicts jaw and root rotation, from its size and the package's configuration.

    Args:
        outputs: rows of the network's last layer: 50, 53 or 56.
        jaw, root: the values in the package's configuration; None if it has none.

    Raises InputError for another size, or if 53 outputs are ambiguous.

    Example:
        >>> pose_parts(53, jaw=True, root=False)
        (True, False)
    """
    if outputs == EXPRESSION:
        return False, False
    if outputs == EXPRESSION + 6:
        return True, True
    if outputs != EXPRESSION + 3:
        raise InputError(f"the expression network has {outputs} outputs; expected 50, 53 or 56")
    if bool(jaw) == bool(root):
        raise InputError(
            "the expression network has 53 outputs: 50 for the expression and 3 for the jaw or the whole head, "
            "and cfg.yaml does not say which; expected exp_deca_jaw_pose or exp_deca_global_pose to be true"
        )
    return bool(jaw), bool(root)
