"""Does a result know which of its frames are bad? Rendered clips with known damage."""
