"""A home with the traffic of three people, and all that a turn makes of it."""

import hashlib
import json
import pickle
import shutil
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from components import scorecard
from components.curate import curate_workload
from components.curate.settings import Rules
from components.dataset import freeze_snapshot
from components.dataset.snapshot_figures import Snapshot
from components.evaluate.task_metrics import CALL_METRICS
from components.extensions.machines.lake_warehouse import Lake
from components.gate import evidence_folder
from components.gate.evidence_folder import EvidenceSubject
from components.gate.judgement import Judgement
from components.gate.policy import Policy
from components.schema import Json
from components.scorecard import HOLDOUT, Sample
from components.store import ledger, manifest, warehouse, working_copy
from flows.settings import Settings
from tests.support import logs, once, warehouses

RULES = Rules(holdout_share=0.5, validation_share=0, split_by="conversation")
PEOPLE = ("ann-7f3a", "bob-19c2", "cyd-55e0")
ANN, BOB, CYD = PEOPLE
EACH = 8
WORKLOAD = "weather"


@dataclass(frozen=True)
class House:
    """A home, the files that were collected, and what was made of them."""

    settings: Settings
    log: Path
    votes: Path
    frozen: Snapshot
    adapter: Path
    scorecard: Path
    evidence: Path

    def raw(self, table: str = "interactions") -> list[warehouse.Row]:
        """Give the rows of raw, in one order."""
        with warehouse.reading(self.settings.tables) as con:
            return warehouse.rows(con, f"from raw.{table} order by all")


def question(person: str, number: int) -> str:
    """Word what a person asks, like nothing that is asked else."""
    return f"{person.split('-')[0]} asks about the weather of {_place(person, number)}"


def _place(person: str, number: int) -> str:
    digest = hashlib.sha256(f"{person} {number}".encode()).hexdigest()
    return " ".join(digest[at : at + 6] for at in range(0, 60, 6))


def line(person: str, number: int) -> dict[str, Json]:
    """Write what one person asked and was answered."""
    return logs.interaction(
        question(person, number),
        response_id=f"answer-{person}-{number}",
        message=logs.say(f"It rains on {person.split('-')[0]} in {_place(person, number)} today."),
        timestamp=1_760_000_000 + number,
        user_id=person,
        conversation_id=f"talk-{person}-{number // 2}",
    )


def vote(person: str, number: int, about: str) -> dict[str, Json]:
    """Write what a person thought of somebody's answer."""
    return logs.feedback(
        "thumb",
        "up",
        response_id=f"answer-{about}-{number}",
        actor_id=person,
        comment=f"{person.split('-')[0]} likes answer {number} of {about.split('-')[0]} a lot",
        timestamp=1_760_000_500 + number,
    )


def build(home: Path, lake: Lake | None = None) -> House:
    """Collect, curate and freeze; then write an adapter, a scorecard and evidence."""
    settings = Settings(home, 4200, 5000, shared_warehouse=lake)
    sources = home.parent / "sources"
    sources.mkdir(parents=True, exist_ok=True)
    lines = [line(person, n) for n in range(EACH) for person in PEOPLE]
    log = logs.write(sources / "log.jsonl", [*lines, {"user_id": ANN, "broken": True}, {"x": BOB}])
    given = [vote(BOB, 1, ANN), vote(ANN, 2, BOB), vote(CYD, 3, BOB), vote(CYD, 4, CYD)]
    votes = logs.write(sources / "votes.jsonl", given)
    if lake is None:
        warehouses.create(settings.warehouse)
    frozen = collect(settings, log, votes)
    adapter = _adapter(settings, frozen)
    card = _scorecard(settings, frozen, adapter)
    return House(settings, log, votes, frozen, adapter, card, _evidence(settings, frozen, adapter))


def build_once() -> House:
    """Return a house that all tests share, and only copy."""

    def make(folder: Path) -> None:
        (folder / "house").write_bytes(pickle.dumps(build(folder / "home")))

    return pickle.loads((once.made("house", make) / "house").read_bytes())


def move(built: House, home: Path, lake: Lake | None = None) -> House:
    """Copy a house with its sources to another place; its lake, if any, is copied already."""
    old = built.settings.home
    shutil.copytree(old, home)
    shutil.copytree(old.parent / "sources", home.parent / "sources")

    def moved(path: Path) -> Path:
        return home.parent / path.relative_to(old.parent)

    return House(
        Settings(home, 4200, 5000, shared_warehouse=lake),
        moved(built.log),
        moved(built.votes),
        replace(built.frozen, path=moved(built.frozen.path)),
        moved(built.adapter),
        moved(built.scorecard),
        moved(built.evidence),
    )


def collect(settings: Settings, log: Path, votes: Path) -> Snapshot:
    """Load both files, curate and freeze."""
    if settings.shared_warehouse:
        return _collect_into_lake(settings, log, votes)
    with warehouse.connect(settings.warehouse) as con:
        logs.load(con, log, now=logs.NOW)
        logs.load_feedback(con, votes, now=logs.NOW)
        curate_workload.curate(con, WORKLOAD, RULES, now=logs.NOW)
        frozen = freeze_snapshot.freeze(
            con, settings.snapshots, WORKLOAD, rules=RULES, now=logs.NOW
        )
        ledger.record_output(con, WORKLOAD, frozen.path, now=logs.NOW)
        return frozen


def _collect_into_lake(settings: Settings, log: Path, votes: Path) -> Snapshot:
    with warehouse.connect(settings.tables, writes=["raw"]) as con:
        logs.load(con, log, now=logs.NOW)
        logs.load_feedback(con, votes, now=logs.NOW)
    with working_copy.open_copy(settings.tables, WORKLOAD, settings.scratch) as copy:
        curate_workload.curate(copy.con, WORKLOAD, RULES, now=logs.NOW)
        frozen = freeze_snapshot.freeze(
            copy.con, settings.snapshots, WORKLOAD, rules=RULES, now=logs.NOW
        )
        copy.merge(lambda con: ledger.record_output(con, WORKLOAD, frozen.path, now=logs.NOW))
        return frozen


def holds(folder: Path, word: str) -> list[Path]:
    """List the files under a folder in whose bytes a word stands."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return [path for path in files if word.encode() in path.read_bytes()]


def _adapter(settings: Settings, frozen: Snapshot) -> Path:
    folder = settings.adapters / WORKLOAD / "a1"
    folder.mkdir(parents=True)
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
    body = {"snapshot": frozen.key, "base": "b1"}
    manifest.write(folder, kind="adapter", now=logs.NOW, body=body)
    job = settings.jobs / "train-a1"
    job.mkdir(parents=True)
    (job / "spec.json").write_text(json.dumps({"snapshot": str(frozen.path)}))
    (job / "log.txt").write_text(f"too long: {question(ANN, 3)}\n")
    return folder


def _scorecard(settings: Settings, frozen: Snapshot, adapter: Path) -> Path:
    rows = pq.read_table(frozen.path / "holdout.parquet").to_pylist()
    samples = [
        Sample(
            doc_id=number,
            example_id=str(row["example_id"]),
            cluster_id=str(row["group"]),
            doc_hash=f"d{number}",
            prompt_hash=f"p{number}",
            request=row["prompt"][-1]["content"],
            prompt=json.dumps(row["prompt"]),
            output="Sunny.",
            reference=row["completion"][0]["content"],
            scores=dict.fromkeys(CALL_METRICS, 1.0),
            slices={},
        )
        for number, row in enumerate(rows)
    ]
    folder = settings.scorecards / WORKLOAD / "c1"
    body = {"base": "b1", "adapter": adapter.name, "task": HOLDOUT, "conditions": {}}
    scorecard.write(folder, samples, CALL_METRICS, body=body, now=logs.NOW + timedelta(hours=1))
    return folder


def _evidence(settings: Settings, frozen: Snapshot, adapter: Path) -> Path:
    version = frozen.holdout_version
    subject = EvidenceSubject(WORKLOAD, frozen.key, version, "b1", adapter.name, "base", "c1", "c0")
    judgement, policy = Judgement("pass", ("better",), "correct_name"), Policy()
    folder = settings.evidence / WORKLOAD / evidence_folder.digest(subject, judgement, policy)
    folder.mkdir(parents=True)
    page = f"asked:\n  {question(ANN, 1)}\n"
    (folder / evidence_folder.REPORT).write_text(f"<p>{question(ANN, 2)}</p>")
    pq.write_table(pa.table({"request": [question(ANN, 3)]}), folder / evidence_folder.SAMPLES)
    evidence_folder.finish(folder, subject, judgement, policy, {}, brief=page, now=logs.NOW)
    return folder
