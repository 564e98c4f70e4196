import torch

from neuface.geometry.line_of_sight import line_of_sight_rotation
from neuface.geometry.rotations import rotmat_to_rotvec


def some_directions() -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    directions = torch.randn(50, 3, generator=generator, dtype=torch.float64)
    return directions * torch.tensor([1.0, 1.0, 0.0]).double() + torch.tensor([0.0, 0.0, 1.5]).double()


def test_the_axis_is_taken_to_the_direction_by_a_rotation():
    directions = some_directions()
    turn = line_of_sight_rotation(directions)
    unit = directions / directions.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(turn[..., 2], unit)
    torch.testing.assert_close(turn @ turn.mT, torch.eye(3).double().expand_as(turn))
    assert bool((torch.linalg.det(turn) > 0).all())


def test_no_smaller_rotation_does_it():
    directions = some_directions()
    rotvec = rotmat_to_rotvec(line_of_sight_rotation(directions))
    angle = torch.atan2(directions[:, :2].norm(dim=-1), directions[:, 2])
    torch.testing.assert_close(rotvec.norm(dim=-1), angle)
    # The smallest rotation has no part about the optical axis.
    torch.testing.assert_close(rotvec[:, 2], torch.zeros_like(angle), atol=1e-9, rtol=0)


def test_on_the_axis_it_is_the_identity_and_the_gradient_is_right():
    on_axis = torch.tensor([0.0, 0.0, 2.0]).double().requires_grad_()
    torch.testing.assert_close(line_of_sight_rotation(on_axis), torch.eye(3).double())
    assert torch.autograd.gradcheck(line_of_sight_rotation, (on_axis,))
    assert torch.autograd.gradcheck(line_of_sight_rotation, (some_directions()[:4].requires_grad_(),))
