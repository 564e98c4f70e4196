"""List the files and functions that are longer than advised. The list is advice; no check fails because of it.

    python -m tools.lengths

A long file that is one idea is better than two files cut in the middle of it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
FOLDERS = ("neuface", "studies", "tests", "tools", "examples")
# Lengths above which a file or a function is listed, lines.
ADVISED_LINES_OF_A_FILE, ADVISED_LINES_OF_A_FUNCTION = 400, 60


def long_parts(name: str, source: str) -> Iterator[str]:
    """One line for the file and one for every function that is longer than advised."""
    lines = len(source.splitlines())
    if lines > ADVISED_LINES_OF_A_FILE:
        yield f"{lines:5} lines  {name}"
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > ADVISED_LINES_OF_A_FUNCTION:
                yield f"{lines:5} lines  {name}: {node.name}"


def main() -> None:
    for folder in FOLDERS:
        for path in sorted((REPOSITORY / folder).rglob("*.py")):
            name = path.relative_to(REPOSITORY).as_posix()
            for line in long_parts(name, path.read_text(encoding="utf-8")):
                print(line)


if __name__ == "__main__":
    main()
