"""What turns of earlier nights leave in a home: a chain of outputs each, as old as it says."""

import json
import os
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from components.gate import evidence_folder
from components.gate.evidence_folder import EvidenceSubject
from components.gate.judgement import Judgement
from components.gate.policy import Policy
from components.schema import Json
from components.store import manifest, output_folders
from flows.settings import Settings

WORKLOAD = "support"
NOW = datetime(2026, 6, 1, tzinfo=UTC)
BEFORE = NOW - timedelta(days=90)


@dataclass(frozen=True)
class Night:
    """The outputs of a turn."""

    snapshot: Path
    adapter: Path
    scorecards: tuple[Path, ...]
    evidence: Path

    @property
    def folders(self) -> tuple[Path, ...]:
        return (self.snapshot, self.adapter, *self.scorecards, self.evidence)


@dataclass(frozen=True)
class Turn:
    """What a turn is like; ``holdout`` is its version, ``asked`` a person's request."""

    name: str
    days: int = 200
    workload: str = WORKLOAD
    outcome: str = "fail"
    holdout: str = ""
    asked: str = ""
    adapter: dict[str, Json] = field(default_factory=dict[str, Json])
    conditions: dict[str, Json] = field(default_factory=dict[str, Json])

    def run(self, home: Settings) -> Night:
        """Write its outputs."""
        at = NOW - timedelta(days=self.days)
        version = self.holdout or f"v-{self.name}"
        frozen = snapshot(home, self.name, version, at, self.asked, self.workload)
        adapter = home.adapters / self.workload / key("adapter", self.name)
        adapter.mkdir(parents=True)
        (adapter / "adapter_model.safetensors").write_bytes(b"weights" * 100)
        body = {"snapshot": frozen.name, "base": "b1", "workload": self.workload, **self.adapter}
        manifest.write(adapter, kind="adapter", now=at, body=body)
        measured = {"holdout_version": version, **self.conditions}
        cards = tuple(
            scorecard(
                *(home, f"{role} {self.name}", measured, at, self.asked),
                adapter=adapter.name,
                workload=self.workload,
            )
            for role in ("challenger", "opponent", "guard")
        )
        job = home.jobs / f"train-{adapter.name}"
        job.mkdir(parents=True)
        (job / "spec.json").write_text(
            json.dumps({"snapshot": f"{frozen}", "folder": f"{adapter}"})
        )
        (job / "log.txt").write_text(f"too long: {self.asked}\n")
        age(job, at)
        subject = EvidenceSubject(
            *(self.workload, frozen.name, version, "b1", adapter.name, "base"),
            *(cards[0].name, cards[1].name, (cards[2].name,)),
        )
        shown = evidence(home, subject, self.outcome, at, self.asked)
        night = Night(frozen, adapter, cards, shown)
        for folder in night.folders:
            age(folder, at)
        return night


def key(*parts: str) -> str:
    """Name an output."""
    return manifest.digest([*parts])


def snapshot(
    home: Settings,
    name: str,
    version: str,
    at: datetime,
    asked: str = "",
    workload: str = WORKLOAD,
) -> Path:
    """Freeze a row, of the interaction that is called like the snapshot."""
    folder = home.snapshots / workload / key("snapshot", name)
    folder.mkdir(parents=True)
    row = {"example_id": f"e-{name}", "interaction_ids": [f"i-{name}"], "feedback_ids": [""]}
    for side in ("train", "validation", "holdout"):
        pq.write_table(pa.Table.from_pylist([{**row, "asked": asked}]), folder / f"{side}.parquet")
    rows = dict.fromkeys(("train", "validation", "holdout"), 1)
    body = {"workload": workload, "holdout_version": version, "rows": rows}
    manifest.write(folder, kind="snapshot", now=at, body=body)
    return folder


def scorecard(
    home: Settings,
    name: str,
    conditions: dict[str, Json],
    at: datetime,
    asked: str = "",
    adapter: str | None = None,
    workload: str = WORKLOAD,
) -> Path:
    """Measure a model on a row."""
    folder = home.scorecards / workload / key("scorecard", name)
    folder.mkdir(parents=True)
    row = {"example_id": f"e-{name.split()[-1]}", "asked": asked}
    pq.write_table(pa.Table.from_pylist([row]), folder / "samples.parquet")
    body = {"base": "b1", "adapter": adapter, "task": "holdout", "conditions": conditions}
    manifest.write(folder, kind="scorecard", now=at, body=body)
    return folder


def evidence(
    home: Settings, subject: EvidenceSubject, outcome: str, at: datetime, asked: str = ""
) -> Path:
    """Write evidence with a page that shows a request."""
    judgement = replace(Judgement("fail", ("worse",), "correct_name"), outcome=outcome)
    root, policy = home.evidence / subject.workload, Policy()
    folder = root / evidence_folder.digest(subject, judgement, policy)
    folder.mkdir(parents=True)
    (folder / "report.html").write_text(f"<p>{asked}</p>")
    evidence_folder.finish(folder, subject, judgement, policy, {}, brief=asked, now=at)
    return folder


def age(folder: Path, at: datetime) -> None:
    """Let the files of a folder have been written then."""
    for path in [*folder.rglob("*"), folder]:
        os.utime(path, (at.timestamp(), at.timestamp()))


def there(night: Night) -> list[str]:
    """Name the kinds of a night's outputs that are finished."""
    return [folder.parents[1].name for folder in night.folders if output_folders.fetch(folder)]


ALL = ["snapshots", "adapters", "scorecards", "scorecards", "scorecards", "evidence"]
GONE = ["evidence"]  # of which the verdict stays
