"""How well does the uncertainty of detected landmarks predict their errors? Rendered faces with known landmarks."""
