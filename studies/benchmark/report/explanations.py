"""Likely causes of failed claims of the paper and of unmet requirements, for the report."""

from __future__ import annotations

_NOISE = (
    "Free parameters of every image follow each landmark, and its noise, most closely. The columns of exact "
    "landmarks, which rendered people have, show the order without noise."
)
_COLOURS = (
    "Here every image is compared with the clip's own colours, which stabilise the mesh between frames like a "
    "tracker; the paper uses a statistical texture, which explains less of an image."
)
_CORNERS = (
    "A mean of five frames flattens the extremes of every motion and pulls heads off their landmarks there. Shape "
    "and expression compensate for it, differently in every view."
)
_UNCONSTRAINED = (
    "paper() does not constrain what 68 landmarks leave unobserved: with a code per image and no prior, size and "
    "depth of the face drift, more so where the landmarks are damaged. Direct fitting has the regularisers of Eq. "
    "5, and best() has a code and a size that are estimated first; with them the order is the paper's."
)

LIKELY_CAUSES = {
    "msi3d_vertices_against_direct": (
        "official() takes steps of 2e-5, chosen for a network with ten times the weights, for 100 passes: the open "
        "encoder hardly leaves its noisy predictions. With our step size it is more stable than direct fitting."
    ),
    "nme_percent_against_direct": _NOISE,
    "mpve_mm_against_direct": _UNCONSTRAINED,
    "mpve_mm_against_encoder": _UNCONSTRAINED,
    "cvd_mm_against_direct": (
        "With the same multi-view term, free parameters can move each mesh to the merged one, which the network's "
        "weights restrict."
    ),
    "direct_msi3d": (
        "The scan is a still face that is filmed by moving cameras, and its landmarks follow another annotation: "
        "free parameters of each image follow them, whereas the encoder sees one face."
    ),
    "landmarks_only_cvd": (
        "Without a fit, the open encoder's predictions for several views differ by millimetres: landmarks bring its "
        "views together, whereas they drove DECA's apart."
    ),
    "landmarks_only_msi3d": (
        "The open encoder's predictions, one image at a time, jitter more than the landmarks of these clips, so that "
        "landmarks alone make them more stable; DECA's predictions are more stable than detected landmarks."
    ),
    "multiview_nme": (
        "One face for all cameras cannot follow landmarks that contradict each other: detectors place points "
        "differently in every view, between two real cameras by 2.5 to 3.5 % of the eye distance."
    ),
    "temporal_cvd": _CORNERS,
    "everything_cvd": _CORNERS,
    "median_cvd_mm": f"{_CORNERS} The median does so less.",
    "median_nme_percent": f"{_CORNERS} The median does so less.",
    "photometric_cvd_mm": _COLOURS,
    "photometric_msi3d_vertices": _COLOURS,
    "photometric_nme_percent": _COLOURS,
    "identity_spread": (
        "The open encoder starts with codes that hardly differ within a clip; without a constraint between them, "
        "landmark noise pulls them apart."
    ),
}

UNMET_CAUSES = {
    "mpve_mm": (
        "The targets are close to the expected error of an ideal estimate of the shape at rest (beside them), "
        "before any error of expression. Most of it is size: no weak-perspective camera observes it, and shape "
        "determines it to 1.5 to 2 %. Among four people, one whose size is unusual for this shape "
        "dominates the mean; the columns with scale are free of it."
    ),
    "nme_percent": (
        "These landmarks are wrong on purpose (jumps, drift, hands) or follow another annotation (the scan's "
        "lie 2 to 3 mm from the head model's) or contradict each other between cameras. paper(), with a code "
        "for every image and no constraint on it, follows them more closely, and is further from the truth as a "
        "result: see the error against exact landmarks, MPVE, CVD, and the distance to the scan."
    ),
}
"""Causes by metric."""
