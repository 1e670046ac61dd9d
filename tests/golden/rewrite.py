"""Rewrite golden files whose version was raised: ``python -m tests.golden.rewrite``."""

import sys
import tempfile
from pathlib import Path

from tests.golden import comparing, outputs
from tests.support import tiny


def main() -> int:
    """Rewrite what changed; refuse what changed under its old number."""
    refused = 0
    with tempfile.TemporaryDirectory() as folder:
        base = tiny.build(Path(folder) / "base")
        for name, golden in outputs.ALL.items():
            now = golden.of_now(Path(folder) / name, base)
            is_new = not (outputs.FOLDER / f"{name}.json").exists()
            before = {} if is_new else outputs.kept(name)
            changed = comparing.first_difference(before.get("output"), now["output"])
            if is_new or before["version"] != now["version"]:
                outputs.write(name, now)
                sys.stdout.write(f"{name}: written\n")
            elif changed:
                sys.stdout.write(f"{name}: {changed}; raise {golden.place} first\n")
                refused += 1
    return 1 if refused else 0


if __name__ == "__main__":
    sys.exit(main())
