"""Take a result to another tool: meshes as OBJ files, blend shape weights and head pose as CSV.

    python examples/05_meshes_and_parameters.py

OBJ files open in Blender, MeshLab and the like. The expression units of the open head have ARKit's names, so that the
CSV drives any face rigged with those.
"""

from __future__ import annotations

import csv
from pathlib import Path

import torch
import tyro

import neuface

DATA = Path(__file__).parent / "data"


def main(out: Path = Path("out"), passes: int = 5) -> None:
    out.mkdir(parents=True, exist_ok=True)
    result = neuface.optimize(
        DATA / "front.mp4",
        landmarks=DATA / "front.landmarks.npz",
        config=neuface.FitConfig.best({"m_step.stop.max_passes": passes}),
    )
    head = neuface.load_head("open")

    vertices = result.vertices()  # (views, time, vertices, 3) metres: x right, y up, z to the camera
    for frame in range(0, vertices.shape[1], 10):
        write_obj(out / f"frame_{frame:04}.obj", vertices[0, frame], head.faces)
    # The mesh without the head's rotation, for those who animate it themselves.
    write_obj(out / "unposed_0000.obj", result.vertices(posed=False)[0, 0], head.faces)

    with (out / "expression.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["seconds", "root_x", "root_y", "root_z", *head.expression_names])
        for frame in range(vertices.shape[1]):
            params = result.params[0, frame]
            numbers = torch.cat(
                (params.root_rotvec, params.expression)
            )  # a rotation vector in radians; units 0 to 1
            table.writerow([frame / result.fps, *(f"{number:.5f}" for number in numbers.tolist())])
    print(f"written to {out}: OBJ files of every tenth frame and expression.csv")


def write_obj(path: Path, vertices: torch.Tensor, faces: torch.Tensor) -> None:
    lines = [f"v {x:.6f} {y:.6f} {z:.6f}" for x, y, z in vertices.tolist()]
    lines += [f"f {a + 1} {b + 1} {c + 1}" for a, b, c in faces.tolist()]  # OBJ counts from 1
    path.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
