"""Tracking of people: which of the faces that were found in each frame belong to one person."""
