"""What a spin did: its turns on disk, and whether every answer came from who had to give it."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path

from components.schema import Json
from components.store.manifest import write_atomically
from tests.spin.people import AppAnswer, SentReaction

FLIP_SECONDS = 2.0  # a flip is journaled before it is made: until then the version before answers


@dataclass(frozen=True, slots=True)
class SpinTurn:
    """A turn that has ended; ``answers`` are the lines of the application's file until its end."""

    number: int
    ending: str
    answers: int
    version: str | None
    """Who serves at its end."""
    sealed: Mapping[str, bool]
    """Whether that version's answer to each sealed request is right by name."""


@dataclass(frozen=True, slots=True)
class SpinState:
    """How far a spin is: its turns, and the flow run of the one under way."""

    turns: Sequence[SpinTurn] = ()
    run: str | None = None

    def write(self, path: Path) -> None:
        """Replace the file, whole or not at all."""
        write_atomically(path, json.dumps(asdict(self), indent=1))

    def started(self, run: str) -> "SpinState":
        """Return the state in which a turn runs."""
        return replace(self, run=run)

    def ended(self, turn: SpinTurn) -> "SpinState":
        """Return the state in which that turn has ended."""
        return replace(self, turns=[*self.turns, turn], run=None)


def read_state(path: Path) -> SpinState:
    """Read the file; an empty state if it does not exist."""
    if not path.exists():
        return SpinState()
    content = json.loads(path.read_text())
    turns = [SpinTurn(**turn) for turn in content["turns"]]
    return SpinState(turns, content["run"])


@dataclass(frozen=True, slots=True)
class WarehouseAnswer:
    """What the warehouse has of an answer; ``version`` is ``None`` if it is none of ours."""

    response_id: str
    model_name: str
    version: str | None
    arm: str


@dataclass(frozen=True, slots=True)
class Promises:
    """What was promised of all answers, with what breaks it."""

    answered: int
    failed: Sequence[str]
    lost: Sequence[str]
    wrong_version: Sequence[str]
    fallbacks: int
    """Answers of the stand-in while a version served; no promise."""
    refused_feedback: Sequence[str]


def name_versions(
    workload: str, answers: Sequence[AppAnswer], logged: Mapping[str, WarehouseAnswer]
) -> list[AppAnswer]:
    """Return answers with the version in their record where a canary's time hid it from clients."""
    return [
        replace(answer, model=logged[answer.id].model_name)
        if answer.model == workload and answer.id in logged
        else answer
        for answer in answers
    ]


def check_answers(
    workload: str,
    answers: Sequence[AppAnswer],
    logged: Mapping[str, WarehouseAnswer],
    feedback: Sequence[SentReaction],
    journal: Sequence[dict[str, Json]],
) -> Promises:
    """Hold each answer against the warehouse and against who served when it was given.

    Args:
        workload: Its name, which answers of its versions begin with.
        answers: The lines of the application's file.
        logged: What the warehouse has, by the answer's id.
        feedback: What people sent.
        journal: The gateway's steps, oldest first.
    """
    steps = _serving_since(step for step in journal if step["workload"] == workload)
    failed, lost, wrong, fallbacks = list[str](), list[str](), list[str](), 0
    for answer in answers:
        name = f"request {answer.number}"
        if answer.status != 200:
            failed.append(f"{name}: {answer.status} {answer.error}")
            continue
        record = logged.get(answer.id)
        if record is None:
            lost.append(f"{name}: {answer.id}")
            continue
        is_ours = answer.model.startswith(f"{workload}@")
        claimed = answer.model.removeprefix(f"{workload}@") if is_ours else None
        served = _serving(steps, answer)
        if (record.model_name, record.version) != (answer.model, claimed):
            wrong.append(f"{name}: {answer.model}, logged as {record.model_name}")
        elif claimed is None and record.arm == "fallback" and None not in served:
            fallbacks += 1
        elif claimed not in served:
            wrong.append(f"{name}: {answer.model}, while {sorted(map(str, served))} served")
    refused = [
        f"on request {sent.number}: {sent.statuses}"
        for sent in feedback
        if {*sent.statuses} != {200}
    ]
    return Promises(len(answers), failed, lost, wrong, fallbacks, refused)


def _version_of(model: str) -> str:
    """Return the version in an engine's name of an adapter, ``<workload>.v<version>-<sha12>``."""
    return model.rpartition(".v")[2].partition("-")[0]


def _serving_since(journal: Iterable[dict[str, Json]]) -> list[tuple[float, set[str | None]]]:
    """Return who may answer from which time on: the champion, and beside it a canary."""
    champion: str | None = None
    canary: str | None = None
    changes: list[tuple[float, set[str | None]]] = []
    for step in journal:
        version = _version_of(str(step["model"]))
        match step["step"]:
            case "flipped":
                champion, canary = version, None
            case "withdrawn":
                champion = None
            case "canary_began":
                canary = version
            case "canary_ended" if step.get("outcome") != "hold":  # it keeps its share until then
                canary = None
            case _:
                continue
        at = datetime.fromisoformat(str(step["at"])).timestamp()
        changes.append((at, {champion, canary} - {None} or {None}))
    return changes


def _serving(steps: Sequence[tuple[float, set[str | None]]], answer: AppAnswer) -> set[str | None]:
    """Return who may have given an answer: who served when it began, and who took over since."""
    sent = answer.sent_at
    before = [versions for at, versions in steps if at <= sent - FLIP_SECONDS]
    during = [versions for at, versions in steps if sent - FLIP_SECONDS < at <= answer.ended_at]
    return (before[-1] if before else {None}).union(*during)
