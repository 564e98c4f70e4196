"""Accurate, temporally stable, view-consistent 3D head meshes from face video."""
