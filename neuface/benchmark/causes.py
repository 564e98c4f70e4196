"""Why claims of the paper may fail to hold here, as far as we understand it: remarks for the report, by claim."""

from __future__ import annotations

_NOISE = (
    "Moving every image's parameters by themselves follows each landmark, and its noise, most closely. Against "
    "landmarks without noise, which rendered people have, the order is told by the columns of exact landmarks."
)
_TRACKER = (
    "Colours hold the mesh between frames like a tracker. In rendered pictures, lit as the term assumes, little "
    "disturbs them; real shadows, gloss and hair do."
)

LIKELY_CAUSES = {
    "nme_percent_against_direct": _NOISE,
    "landmarks_only_cvd": (
        "Alone, the open encoder's answers for several views differ by millimetres: landmarks bring its views "
        "together, where they drove DECA's apart."
    ),
    "median_cvd_mm": (
        "Targets reach the fit through un-squared norms, so that small differences decide what it settles on; the "
        "spread between clips is larger than this difference."
    ),
    "median_nme_percent": (
        "A mean of five frames cuts the corners of every motion and pulls the fit off its landmarks there; the "
        "median does so less."
    ),
    "photometric_cvd_mm": _TRACKER,
    "photometric_msi3d_vertices": _TRACKER,
    "photometric_msi3d_landmarks": _TRACKER,
    "photometric_nme_percent": _TRACKER,
    "cvd_mm_against_direct": (
        "With the same multi-view term, free parameters can move each mesh to the merged one without a network in "
        "the way."
    ),
    "identity_spread": (
        "The open encoder begins with codes that hardly differ within a clip; without anything that ties them, "
        "landmark noise pulls them apart."
    ),
}
