"""Settled sides stay in the warehouse through growth and feedback."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from components.curate.settings import Rules
from components.schema import Json
from components.store.warehouse import Connection
from tests.support import curations, logs, warehouses

ROWS = 30


@dataclass(frozen=True)
class Turn:
    """Traffic since the previous turn."""

    arriving: frozenset[int]
    disliked: frozenset[int]
    share: float


turns = st.builds(
    Turn,
    arriving=st.frozensets(st.integers(0, ROWS - 1), min_size=4),
    disliked=st.frozensets(st.integers(0, ROWS - 1), max_size=4),
    share=st.floats(0.1, 0.7),
)


def line(n: int) -> dict[str, Json]:
    """Return a request; every fourth belongs to another one's conversation."""
    more: dict[str, Json] = {"conversation_id": f"c{n % 5}"} if n % 4 == 0 else {}
    question = f"ask {n // 2}"
    return logs.interaction(question, response_id=f"r{n}", timestamp=n, user_id=f"u{n % 9}", **more)


def load(con: Connection, folder: Path, turn: Turn) -> None:
    lines = logs.write(folder / "log.jsonl", map(line, turn.arriving))
    logs.load(con, lines, now=logs.NOW)
    votes = [logs.feedback(response_id=f"r{n}") for n in turn.disliked]
    logs.load_feedback(con, logs.write(folder / "feedback.jsonl", votes), now=logs.NOW)


def standing(con: Connection, ids: Iterable[str] | None = None) -> dict[str, str]:
    rows = con.execute("select interaction_id, side from curated.standings").fetchall()
    return {key: side for key, side in rows if ids is None or key in ids}


@given(st.lists(turns, min_size=2, max_size=3), st.sampled_from(["conversation", "user", "tools"]))
@settings(
    max_examples=3,
    phases=[Phase.generate],
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@pytest.mark.slow
def test_a_frozen_row_never_changes_side(tmp_path: Path, grown: list[Turn], split_by: str):
    (tmp_path / "w.duckdb").unlink(missing_ok=True)
    first: dict[str, str] = {}
    with warehouses.connect(tmp_path / "w.duckdb") as con:
        for turn in grown:
            load(con, tmp_path, turn)
            rules = Rules.model_validate(
                {"holdout_share": turn.share, "validation_share": 0.1, "split_by": split_by}
            )
            tally = curations.curate(con, "weather", rules, now=logs.NOW)
            now = standing(con)
            assert all(side == first.get(row, side) for row, side in now.items())
            if tally.train and tally.holdout:
                curations.freeze(con, tmp_path / "snapshots", "weather", rules=rules, now=logs.NOW)
                first |= now
