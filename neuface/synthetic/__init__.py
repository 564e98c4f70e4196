"""Rendered heads with known truth: training pictures for the open encoder, and the demo clip."""
