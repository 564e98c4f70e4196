"""Pictures for people; every function returns pixels and none opens a file."""

from neuface.viz.figures import loss_curves
from neuface.viz.overlay import contact_sheet, overlay_mesh, side_by_side

__all__ = ["contact_sheet", "loss_curves", "overlay_mesh", "side_by_side"]
