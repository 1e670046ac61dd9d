"""Settled sides stay in the warehouse through growth, feedback and upgrades."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from components.curate.settings import Rules
from components.schema import Json
from components.store import warehouse
from components.store.warehouse import Connection
from tests.support import curations, logs, warehouses

SQL = Path(warehouse.__file__).parents[2] / "sql" / "migrations"
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


def test_sides_of_a_file_from_before_rows_were_settled_one_by_one_stay(tmp_path: Path):
    old = tmp_path / "old"
    old.mkdir()
    for path in sorted(SQL.glob("000[1-5]_*.sql")):
        (old / path.name).write_text(path.read_text())
    turn, rules = Turn(frozenset(range(ROWS)), frozenset(), 0.5), Rules(holdout_share=0.5)
    with warehouses.connect(tmp_path / "new.duckdb") as con:
        load(con, tmp_path, turn)
        curations.curate(con, "weather", rules, now=logs.NOW)
        groups = con.execute(
            "select distinct ties[2], side from curated.standings order by all"
        ).fetchall()
    others = {group: "holdout" if side == "train" else "train" for group, side in groups}
    with duckdb.connect(tmp_path / "old.duckdb") as con:
        warehouse.migrate(con, old)
        con.executemany(
            "insert into curated.sides values ('weather', ?, 'tools', ?, '2025-01-01')",
            list(others.items()),
        )
    with warehouse.connect(tmp_path / "old.duckdb") as con:
        load(con, tmp_path, turn)
        curations.curate(con, "weather", rules, now=logs.NOW)
        sides = con.execute("select distinct ties[2], side from curated.standings").fetchall()
        assert dict(sides) == others
