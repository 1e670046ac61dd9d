"""Check names: `python -m tests.names` lists what breaks a rule, and exits with 1 if anything does.

No public class and no module has its name twice, and no parameter or field has a name that could
mean anything.
"""

import ast
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("components", "flows")
VAGUE = frozenset({"one", "found", "said", "told", "given", "wanted"})
STORED = frozenset({"Burst.found", "BurstEvidence.found", "Disagreement.found", "Stage.said"})
"""Fields that are columns of the warehouse or keys of files, which homes have."""

SHARED_BASENAMES = frozenset({"settings", "__init__"})


def main() -> int:
    """Print each broken rule with its place; return the exit code."""
    paths = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
    trees = {path.relative_to(ROOT): ast.parse(path.read_text()) for path in paths}
    broken = [*repeated_modules(trees), *repeated_classes(trees), *vague_names(trees)]
    for line in broken:
        print(line)  # noqa: T201 - this is its output
    return 1 if broken else 0


def repeated_modules(trees: dict[Path, ast.Module]) -> Iterator[str]:
    """Yield a line for each module name that several modules have."""
    places = defaultdict[str, list[str]](list)
    for path in trees:
        if path.stem not in SHARED_BASENAMES:
            places[path.stem].append(str(path))
    for name, paths in places.items():
        if len(paths) > 1:
            yield f"module {name}: {', '.join(paths)}"


def repeated_classes(trees: dict[Path, ast.Module]) -> Iterator[str]:
    """Yield a line for each public class name that several modules define."""
    places = defaultdict[str, list[str]](list)
    for path, tree in trees.items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(f"{path}:{node.lineno}")
    for name, definitions in places.items():
        if len(definitions) > 1:
            yield f"class {name}: {', '.join(definitions)}"


def vague_names(trees: dict[Path, ast.Module]) -> Iterator[str]:
    """Yield a line for each parameter and each field with a vague name."""
    for path, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.arg) and node.arg in VAGUE:
                yield f"{path}:{node.lineno}: parameter {node.arg}"
            if isinstance(node, ast.ClassDef):
                for name, line in fields(node):
                    if name in VAGUE and f"{node.name}.{name}" not in STORED:
                        yield f"{path}:{line}: field {name}"


def fields(definition: ast.ClassDef) -> Iterator[tuple[str, int]]:
    """Yield the name and the line of each annotated field of a class."""
    for statement in definition.body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            yield statement.target.id, statement.lineno


if __name__ == "__main__":
    sys.exit(main())
