"""A change of champion that is killed anywhere ends whole: finished, or all as it was before."""

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from components import warehouse
from components.register import aliases, crowning, journal, registry, rollback
from components.register.aliases import CHALLENGER, CHAMPION, PREVIOUS, Aliases
from components.register.journal import STEPS, Change, Journal, Step
from components.register.registry import Version
from tests.forking import PROCESSES

NOW = datetime(2026, 1, 1, 12, 30, tzinfo=UTC)


def books(folder: Path, after: Callable[[Step, bool], None] | None = None) -> Journal:
    given: dict[str, Any] = {} if after is None else {"after": after}
    return Journal(lambda: warehouse.connect(folder / "w.duckdb"), lambda: NOW, **given)


def make(name: str, number: int, **tags: str) -> Version:
    """Register a version of few bytes."""
    client = MlflowClient()
    made = client.create_model_version(
        name,
        "file:///nowhere",
        tags={registry.EVIDENCE_TAG: f"e{number}", registry.ADAPTER_TAG: f"a{number}", **tags},
    )
    return registry.as_version(made)


def history(name: str) -> None:
    """Give a workload two approved versions, the second champion, and a challenger."""
    MlflowClient().create_registered_model(name)
    for number in (1, 2):
        make(name, number, **{registry.DECISION_TAG: "approve"})
    make(name, 3)
    aliases.put(name, CHAMPION, "2")
    aliases.put(name, PREVIOUS, "1")
    aliases.put(name, CHALLENGER, "3")


def promote(name: str, folder: Path, step: Step | None = None, *, written: bool = True) -> None:
    """Promote the third version, and die at a step."""
    change = crowning.promotion(name, "e3", "a3", by="ann", reason="better")
    found = registry.of_evidence(name, "e3")
    assert found is not None
    crowning.promote(books(folder, dying(step, written)), change, lambda: found)


def roll_back(name: str, folder: Path, step: Step | None = None, *, written: bool = True) -> None:
    """Go back to the first version, and die at a step."""
    now, found = aliases.read(name), registry.versions(name)
    known = frozenset({("1", "e1"), ("2", "e2")})
    change = rollback.plan(name, found, now, [], None, approved=known, by="bob", reason="rude")
    dies = books(folder, dying(step, written))
    crowning.finish(dies, dies.intend(change))


def dying(step: Step | None, written: bool) -> Callable[[Step, bool], None]:
    def die(at: Step, is_written: bool) -> None:
        if (at, is_written) == (step, written):
            os.kill(os.getpid(), signal.SIGKILL)

    return die


def kill(work: Callable[..., None], name: str, folder: Path, step: Step, written: bool) -> None:
    """Let a process do it and die there by SIGKILL."""
    process = PROCESSES.Process(target=work, args=(name, folder, step), kwargs={"written": written})
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL


def settle(folder: Path) -> list[tuple[str, str]]:
    return [(one.step, one.said) for one in crowning.settle(books(folder))]


def moments(steps: tuple[Step, ...], quick: tuple[Step, ...]) -> list[Any]:
    """Name each step's two moments, done and written down; only ``quick`` ones are not slow."""
    return [
        pytest.param(
            step,
            written,
            id=f"{step}-{'written' if written else 'done'}",
            marks=[] if written and step in quick else pytest.mark.slow,
        )
        for step in steps
        for written in (False, True)
    ]


@pytest.mark.parametrize(("step", "written"), moments(STEPS, STEPS))
def test_a_promotion_that_was_killed_ends_whole(
    step: Step, written: bool, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    name = f"promoted-{request.node.callspec.id}"
    history(name)
    kill(promote, name, tmp_path, step, written)
    settled = settle(tmp_path)
    if (step, written) == ("intended", False):
        assert settled == []
        assert aliases.read(name) == Aliases(champion="2", challenger="3", previous="1")
        assert registry.numbered(name, "3").decision == ""
        promote(name, tmp_path)
    assert aliases.read(name) == Aliases(champion="3", challenger=None, previous="2")
    crowned = registry.numbered(name, "3")
    tags = MlflowClient().get_model_version(name, "3").tags
    assert (crowned.decision, tags[registry.APPROVER_TAG]) == ("approve", "ann")
    with books(tmp_path).open() as con:
        (entry,) = journal.changes(con, name)
        assert (entry.step, journal.unfinished(con)) == ("done", [])
    assert settle(tmp_path) == []


ROLLING: tuple[Step, ...] = ("intended", "previous_moved", "champion_moved", "done")


@pytest.mark.parametrize(("step", "written"), moments(ROLLING, ("previous_moved",)))
def test_a_rollback_that_was_killed_ends_whole(
    step: Step, written: bool, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    name = f"rolled-{request.node.callspec.id}"
    history(name)
    kill(roll_back, name, tmp_path, step, written)
    settle(tmp_path)
    if (step, written) == ("intended", False):
        assert aliases.read(name) == Aliases(champion="2", challenger="3", previous="1")
        return
    assert aliases.read(name) == Aliases(champion="1", challenger="3", previous=None)
    assert registry.numbered(name, "2").rolled_back == "to version 1 by bob: rude"
    with books(tmp_path).open() as con:
        assert journal.unfinished(con) == []


def begun(name: str, folder: Path, **changes: str | None) -> Change:
    """Write down that the third version is to be champion, and no more."""
    change = crowning.promotion(name, "e3", "a3", by="ann", reason="")
    books(folder).intend(replace(change, **changes))  # pyright: ignore[reportArgumentType]
    return change


def test_what_was_never_registered_leaves_all_as_it_was(tmp_path: Path) -> None:
    history("unmade")
    begun("unmade", tmp_path, evidence_digest="e9")
    before = aliases.read("unmade")
    assert settle(tmp_path) == [("undone", "the version was never registered; nothing had moved")]
    assert aliases.read("unmade") == before


@pytest.mark.parametrize("moved", [False, True], ids=["before-moving", "after-moving"])
def test_what_was_erased_meanwhile_is_not_crowned(moved: bool, tmp_path: Path) -> None:
    name = f"erased-{moved}"
    history(name)
    before = aliases.read(name)
    begun(name, tmp_path)
    if moved:
        aliases.put(name, PREVIOUS, "2")
        aliases.put(name, CHAMPION, "3")
    registry.tag(name, "3", {registry.TAINTED_TAG: "c1"})
    ((step, said),) = settle(tmp_path)
    assert step == "undone"
    assert "erased meanwhile" in said
    assert aliases.read(name) == before


def test_a_champion_that_somebody_put_there_since_stays(tmp_path: Path) -> None:
    history("since")
    begun("since", tmp_path)
    aliases.put("since", CHAMPION, "1")
    assert settle(tmp_path) == [("undone", "version 1 has become champion meanwhile")]
    assert aliases.read("since").champion == "1"


def test_nobody_begins_another_change_before_the_interrupted_one_is_settled(
    tmp_path: Path,
) -> None:
    history("open")
    change = begun("open", tmp_path)
    with pytest.raises(journal.UnsettledError, match="change 1 was interrupted after intended"):
        books(tmp_path).intend(change)
    settle(tmp_path)
    assert books(tmp_path).intend(change).number == 2


def test_a_change_that_was_settled_by_somebody_else_goes_no_further(tmp_path: Path) -> None:
    history("intended-twice")
    entry = books(tmp_path).intend(
        crowning.promotion("intended-twice", "e9", "a9", by="a", reason="")
    )
    settle(tmp_path)
    with pytest.raises(journal.SettledError, match="change 1 is undone by now"):
        books(tmp_path).note(entry, "registered", version="3")


def test_one_process_at_a_time_changes_a_champion(tmp_path: Path) -> None:
    with journal.held(tmp_path, "locked") as first, journal.held(tmp_path, "other") as other:
        assert (first, other) == (True, True)
        with journal.held(tmp_path, "locked", wait=False) as second:
            assert not second
    with journal.held(tmp_path, "locked", wait=False) as again:
        assert again
