"""The evidence folder: all that a person approves, under one digest."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeAlias

from components.gate import judgement as judgements
from components.gate.judgement import Judgement
from components.gate.policy import Policy
from components.gate.share_interval import share_interval
from components.schema import Json
from components.scorecard import Scorecard
from components.store import manifest

Scores: TypeAlias = Mapping[str, Mapping[str, float | None]]
"""Figures by metric: ``n challenger low high opponent``."""

VERDICT = "verdict.json"
BRIEF = "brief.md"


@dataclass(frozen=True, slots=True)
class EvidenceSubject:
    """What was compared, by content: keys of folders under home, hashes, and who the opponent is.

    ``opponent`` is the registered version number of the champion, or ``base`` before there is one.
    ``guard_scorecards`` are both models' on the tasks beside the holdout, ``anchor_scorecards``
    those of the model that guards are held against besides, if that is another. ``remarks`` is a
    digest of what the workload's file adds to the page: its prices and its note.
    ``adapter_bytes`` is the whole SHA-256 of the adapter's folder (``folder_digest``);
    empty in evidence of older versions.
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
        """The opponent as people call it."""
        return "base" if self.opponent == "base" else f"champion (version {self.opponent})"


@dataclass(frozen=True, slots=True)
class TurnReference:
    """The turn that made evidence: its flow run, and the digest of the workload frozen for it."""

    run_id: str
    workload_digest: str


@dataclass(frozen=True, slots=True)
class Evidence:
    """A finished evidence folder, read back; its folder's name is the digest."""

    folder: Path
    subject: EvidenceSubject
    judgement: Judgement

    @property
    def digest(self) -> str:
        """What a decision is bound to."""
        return self.folder.name


def digest(subject: EvidenceSubject, judgement: Judgement, policy: Policy) -> str:
    """Digest everything that the decision depends on, to 16 hex digits."""
    return manifest.digest(_decided_on(subject, judgement, policy))


def older_digest(subject: EvidenceSubject, judgement: Judgement, policy: Policy) -> str:
    """Digest evidence as versions did that did not bind the adapter's bytes."""
    told = _decided_on(subject, judgement, policy)
    del told["subject"]["adapter_bytes"]
    return manifest.digest(told)


def _decided_on(subject: EvidenceSubject, judgement: Judgement, policy: Policy) -> dict[str, Any]:
    return {
        "subject": asdict(subject),
        "judgement": asdict(judgement),
        "policy": policy.model_dump(mode="json"),
    }


def scores(challenger: Scorecard, opponent: Scorecard) -> Scores:
    """Put both models' scores side by side: by metric, with n and the challenger's interval."""
    return {
        metric: _scores_side_by_side(challenger, opponent, metric) for metric in challenger.scores
    }


def _scores_side_by_side(
    challenger: Scorecard, opponent: Scorecard, metric: str
) -> dict[str, float | None]:
    low, high = share_interval(challenger, metric) or (None, None)
    score, other = challenger.scores[metric], opponent.scores.get(metric)
    return {
        "n": score.n,
        "clusters": score.clusters,
        "challenger": score.value,
        "low": low,
        "high": high,
        "opponent": other.value if other else None,
    }


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
    beside: Sequence[str] = (),
    turn: TurnReference | None = None,
) -> Evidence:
    """Write verdict and brief beside the picture in ``folder``, then the manifest.

    ``account`` tells in sentences what is kept of production's quality, and what that costs,
    ``baselines`` what needs no training scores by metric, ``beside`` in sentences which are beaten.
    ``turn`` made the evidence.
    """
    verdict = {
        **_decided_on(subject, judgement, policy),
        "scores": side_by_side,
        "account": [*account],
        "baselines": baselines or {},
        "beside": [*beside],
        "turn": asdict(turn) if turn else None,
    }
    manifest.write_atomically(folder / VERDICT, json.dumps(verdict, indent=2) + "\n")
    manifest.write_atomically(folder / BRIEF, brief)
    manifest.write(folder, kind="evidence", now=now, body=verdict)
    return Evidence(folder, subject, judgement)


def read(folder: Path) -> Evidence:
    """Read a finished evidence folder, of this version or an older one.

    The digest is of what was written: an older version wrote fewer fields.

    Raises:
        FileNotFoundError: It is unfinished.
        ValueError: A file was changed, or the contents are not those that its digest stands for.
    """
    manifest.read_untouched(folder)
    verdict = json.loads((folder / VERDICT).read_text())
    found = manifest.digest(_bound(verdict))
    if found != folder.name:
        raise ValueError(
            f"reading the evidence {folder}: its contents have the digest {found}, so they are not "
            "what this digest stands for; start a new turn"
        )
    told: dict[str, Any] = verdict["subject"]
    for name in ("guard_scorecards", "anchor_scorecards"):
        told[name] = tuple(told.get(name, ()))
    subject = EvidenceSubject(**told)
    return Evidence(folder, subject, judgements.from_json(verdict["judgement"]))


def turn(folder: Path) -> TurnReference | None:
    """Read which turn made finished evidence; ``None`` where an older version did."""
    told = json.loads((folder / VERDICT).read_text()).get("turn")
    return TurnReference(**told) if told else None


def whole_digest(folder: Path) -> str:
    """Return the whole SHA-256 of what the digest of finished evidence is the beginning of."""
    return manifest.whole_digest(_bound(json.loads((folder / VERDICT).read_text())))


def _bound(verdict: Mapping[str, Json]) -> dict[str, Json]:
    return {name: verdict[name] for name in ("subject", "judgement", "policy")}


def policy(folder: Path) -> Mapping[str, Json]:
    """Read the policy that judged a finished evidence, as it was written."""
    told: Mapping[str, Json] = json.loads((folder / VERDICT).read_text())["policy"]
    return told
