"""Show what injected feedback moves, before and after the defence.

``python -m tests.benchmarks.poisoning``
"""

import sys
import tempfile
from pathlib import Path

from tests.support import vote_attacks


def main() -> None:
    """Curate an honest month without an attack and with each, and print who moved how much."""
    say(f"honest: {vote_attacks.SIGNALS} thumbs of {vote_attacks.PEOPLE} people in 30 days")
    say("attack   signals  share before    after  cap  rows lost")
    with tempfile.TemporaryDirectory() as folder:
        found = list(vote_attacks.outcomes(Path(folder)))
    for one in found:
        shares = f"{one.share_before:12.1%}  {one.share_after:7.1%} {one.cap:4.0%}"
        lost = one.disliked - found[0].disliked
        say(f"{one.name:8} {one.signals:7}  {shares}  {lost:9}")
        for row in one.evidence:
            say("   evidence: " + ", ".join(f"{name} {value}" for name, value in row.items()))


def say(line: str) -> None:
    """Print a line."""
    sys.stdout.write(line + "\n")


if __name__ == "__main__":
    main()
