"""The evidence folder: everything that an approval covers, under one digest."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeAlias

from components.gate import judgement as judgements
from components.gate.judgement import Judgement
from components.gate.policy import Policy
from components.schema import Json
from components.scorecard import Scorecard, share_interval
from components.store import manifest

Scores: TypeAlias = Mapping[str, Mapping[str, float | None]]
"""Scores by metric: ``n clusters challenger low high opponent``."""

VERDICT = "verdict.json"
BRIEF = "brief.md"
REPORT = "report.html"
SAMPLES = "samples.parquet"  # each held-out request with both answers


@dataclass(frozen=True, slots=True)
class EvidenceSubject:
    """What was compared, by content: keys of folders under home, hashes, and the opponent.

    ``opponent`` is the champion's registered version number, or ``base`` before there is one.
    ``guard_scorecards`` are both models' on the tasks other than the holdout, ``anchor_scorecards``
    the anchor's (``comparability.Anchor``) if there is one. ``remarks`` is a digest of the prices
    and the note in the workload's file. ``adapter_bytes`` is the whole SHA-256 of the adapter's
    folder (``folder_digest``).
    """

    workload: str
    snapshot: str
    holdout_version: str
    base: str
    adapter: str
    opponent: str
    challenger_scorecard: str
    opponent_scorecard: str
    guard_scorecards: tuple[str, ...] = ()
    remarks: str = ""
    anchor_scorecards: tuple[str, ...] = ()
    adapter_bytes: str = ""

    @property
    def opponent_name(self) -> str:
        """The opponent's displayed name."""
        return "base" if self.opponent == "base" else f"champion (version {self.opponent})"


@dataclass(frozen=True, slots=True)
class TurnReference:
    """The turn that wrote the evidence: its flow run and the digest of its frozen workload."""

    run_id: str
    workload_digest: str


@dataclass(frozen=True, slots=True)
class Evidence:
    """A finished evidence folder, named by its digest."""

    folder: Path
    subject: EvidenceSubject
    judgement: Judgement

    @property
    def digest(self) -> str:
        """The digest that a decision is bound to."""
        return self.folder.name


def digest(subject: EvidenceSubject, judgement: Judgement, policy: Policy) -> str:
    """Return the digest of everything that the decision depends on: 16 hex digits."""
    return manifest.digest(_decided_on(subject, judgement, policy))


def _decided_on(subject: EvidenceSubject, judgement: Judgement, policy: Policy) -> dict[str, Any]:
    return {
        "subject": asdict(subject),
        "judgement": judgements.to_json(judgement),
        "policy": policy.to_json(),
    }


def scores(challenger: Scorecard, opponent: Scorecard) -> Scores:
    """Return both models' scores by metric, with n and the challenger's 95 % interval."""
    by_metric: dict[str, dict[str, float | None]] = {}
    for metric, score in challenger.scores.items():
        low, high = share_interval(challenger, metric) or (None, None)
        other = opponent.scores.get(metric)
        by_metric[metric] = {
            "n": score.n,
            "clusters": score.clusters,
            "challenger": score.value,
            "low": low,
            "high": high,
            "opponent": other.value if other else None,
        }
    return by_metric


def finish(
    folder: Path,
    subject: EvidenceSubject,
    judgement: Judgement,
    policy: Policy,
    side_by_side: Scores,
    *,
    brief: str,
    now: datetime,
    account: Sequence[str] = (),
    baselines: Scores | None = None,
    baseline_sentences: Sequence[str] = (),
    turn: TurnReference | None = None,
) -> Evidence:
    """Write verdict and brief into ``folder``, which has the charts already, then the manifest.

    ``account`` are sentences on the share of production's quality that is kept, and its cost;
    ``baselines`` the scores of untrained baselines by metric, ``baseline_sentences`` are on them.
    """
    verdict = {
        **_decided_on(subject, judgement, policy),
        "scores": side_by_side,
        "account": [*account],
        "baselines": baselines or {},
        "beside": [*baseline_sentences],
        "turn": asdict(turn) if turn else None,
    }
    manifest.write_atomically(folder / VERDICT, json.dumps(verdict, indent=2) + "\n")
    manifest.write_atomically(folder / BRIEF, brief)
    manifest.write(folder, kind="evidence", now=now, body=verdict)
    return Evidence(folder, subject, judgement)


def read(folder: Path) -> Evidence:
    """Read a finished evidence folder.

    Raises:
        FileNotFoundError: It is unfinished.
        ValueError: A file was changed, or the contents do not match the digest.
    """
    manifest.read_untouched(folder)
    verdict = json.loads((folder / VERDICT).read_text())
    actual = manifest.digest(_bound(verdict))
    if actual != folder.name:
        raise ValueError(
            f"reading the evidence {folder}: its contents have the digest {actual}, expected "
            f"{folder.name}; start a new turn"
        )
    fields: dict[str, Any] = verdict["subject"]
    for name in ("guard_scorecards", "anchor_scorecards"):
        fields[name] = tuple(fields[name])
    subject = EvidenceSubject(**fields)
    return Evidence(folder, subject, judgements.from_json(verdict["judgement"]))


def turn(folder: Path) -> TurnReference | None:
    """Return the turn that wrote the evidence, if any did."""
    fields = json.loads((folder / VERDICT).read_text())["turn"]
    return TurnReference(**fields) if fields else None


def whole_digest(folder: Path) -> str:
    """Return the whole SHA-256 whose first 16 hex digits are the evidence's digest."""
    return manifest.whole_digest(_bound(json.loads((folder / VERDICT).read_text())))


def _bound(verdict: Mapping[str, Json]) -> dict[str, Json]:
    return {name: verdict[name] for name in ("subject", "judgement", "policy")}


def policy(folder: Path) -> Mapping[str, Json]:
    """Return the policy that finished evidence was judged under, as JSON."""
    return json.loads((folder / VERDICT).read_text())["policy"]
