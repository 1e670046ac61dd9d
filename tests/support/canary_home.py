"""A home whose workloads start canaries, and a gateway's files as it would write them."""

import json
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow import MlflowClient

from components.decide import decision_log, record_answer
from components.decide.record_answer import ProofContext, Question, TypedAnswer
from components.extensions.canary import rollout_evidence
from components.extensions.canary.count_evidence import ArmCounts, RolloutCounts
from components.extensions.canary.rollout_evidence import AnswerLine
from components.extensions.canary.rollout_log import RecordedRollout
from components.extensions.canary.rollout_order import RolloutPlan
from components.extensions.canary.rollout_verdict import decide
from components.gate import evidence_folder
from components.gate.evidence_folder import Evidence, EvidenceSubject
from components.gate.judgement import Judgement
from components.gate.policy import Policy
from components.register import registry, version_tags
from components.register.registry import Aliases, Version
from components.release import champion_alias
from components.serve.rollout import Arm
from components.serve.rollout_settings import BadKind
from components.store import warehouse
from components.store.manifest import folder_digest
from flows import home_workloads, promotion
from flows.canary import canary_rollouts, rollout_reports
from flows.promotion import PromotedVersion
from flows.settings import Settings
from flows.workload_file import Workload, read_workload
from tests.support import mlflow_stores, versions, warehouses

CANARY = {"rollout": {"canary": {"steps": [{"share": 0.5}], "deadline_hours": 24}}}


ARMS: tuple[Arm, Arm] = ("canary", "champion")
NOW = datetime(2026, 1, 1, 12, 30, tzinfo=UTC)
PASSED = Judgement("pass", ("better",), "correct_name")


@contextmanager
def empty_home(root: Path) -> Generator[Settings]:
    """Make a home whose MLflow is a database, and a base that nothing loads."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", mlflow_stores.create(root))
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        patch.setenv("FLYWHEEL_HOME", str(root / "home"))
        patch.chdir(root)
        warehouses.create(root / "home/warehouse.duckdb")
        (root / "base").mkdir()
        (root / "base" / "config.json").write_text("{}")
        yield Settings(root / "home", 4200, 5000)


@dataclass(frozen=True)
class CanaryHome:
    """A home with MLflow, and one workload of it."""

    home: Settings
    workload: str

    def describe(self, **sections: Any) -> Workload:
        """Write the workload's file, with a canary unless ``serve`` is another."""
        content = {
            "workload": self.workload,
            "base": str(self.home.home.parent / "base"),
            "serve": CANARY,
        }
        file = self.home.home.parent / f"{self.workload}.yaml"
        file.write_text(yaml.safe_dump(content | sections))
        home_workloads.adopt(self.home, self.workload, file)
        return read_workload(file)

    def serve(self, *workloads: str) -> None:
        """Say in the gateway's place that it runs and serves these workloads."""
        folder = self.home.serve
        folder.mkdir(parents=True, exist_ok=True)
        routes = {name: {} for name in workloads or (self.workload,)}
        (folder / "status.json").write_text(json.dumps({"routes": routes, "refused": []}))

    def stop_serving(self) -> None:
        """Let no gateway run."""
        (self.home.serve / "status.json").unlink(missing_ok=True)

    def ask(self, number: int) -> Evidence:
        """Ask about a version of a few bytes, against the champion of now."""
        champion = registry.champion_version(self.workload)
        subject = EvidenceSubject(
            *(self.workload, "s1", "v1", "b1", f"a{number}"),
            *(champion.number if champion else "base", "c1", "o1"),
        )
        model_id = versions.log_files(self.workload, number)
        adapter = self.home.adapters / self.workload / subject.adapter
        subject = replace(subject, adapter_bytes=folder_digest(adapter))
        folder = self.home.evidence / self.workload
        folder = folder / evidence_folder.digest(subject, PASSED, Policy())
        folder.mkdir(parents=True)
        evidence = evidence_folder.finish(folder, subject, PASSED, Policy(), {}, brief="", now=NOW)
        client = MlflowClient()
        if not client.search_registered_models(f"name = '{self.workload}'"):
            client.create_registered_model(self.workload)
        tags = {
            version_tags.EVIDENCE_TAG: evidence.digest,
            version_tags.ADAPTER_TAG: subject.adapter,
        }
        made = client.create_model_version(
            self.workload, f"models:/{model_id}", tags=tags, model_id=model_id
        )
        champion_alias.set_challenger(registry.as_version(made))
        return evidence

    def approve(self, number: int) -> tuple[Evidence, PromotedVersion]:
        """Ask about a version, approve it as ann, and carry that out."""
        evidence = self.ask(number)
        self.decide(evidence)
        return evidence, self.promote(evidence)

    def decide(self, evidence: Evidence) -> None:
        """Record that ann approves, which nothing carries out yet."""
        rules = promotion.in_force(self.home, evidence).approve.rules()
        run = f"{self.workload}-{evidence.subject.adapter.removeprefix('a')}"
        question = Question(self.workload, evidence.digest, run, 1)
        answer = TypedAnswer("approve", "ann", "good")
        with warehouse.connect(self.home.warehouse) as con:
            record_answer.record(con, question, answer, rules, ProofContext(), now=NOW)

    def promote(self, evidence: Evidence) -> PromotedVersion:
        """Carry an approval out, as the promotion's task does."""
        if (status := self.home.serve / "status.json").exists():
            status.touch()  # a gateway that runs writes it every few seconds
        described = promotion.in_force(self.home, evidence)
        with warehouse.connect(self.home.warehouse) as con:
            decision = decision_log.decision_on(con, evidence.digest, described.approve.rules())
        assert decision is not None
        return promotion.promote_version(described, evidence, decision, lambda: None)

    def rollout(self) -> RecordedRollout:
        """Return the newest canary."""
        return canary_rollouts.rollouts_of(self.home, self.workload)[-1]

    def aliases(self) -> registry.Aliases:
        """Read the aliases."""
        return registry.read_aliases(self.workload)

    def version(self, number: str) -> Version:
        """Read a version."""
        return registry.version_numbered(self.workload, number)

    def evidence(self, number: str) -> Evidence:
        """Read a version's evidence."""
        return evidence_folder.read(
            self.home.evidence / self.workload / self.version(number).evidence
        )

    def tags(self, number: str) -> dict[str, str]:
        """Read a version's tags."""
        return registry.version_tags(self.workload)[number]

    def make_decisive(self) -> RolloutPlan:
        """Let the newest canary's order judge by the kind `slow` alone."""
        rollout = self.rollout()
        content = rollout.intention.content()
        order = json.loads(str(content["order"]))
        order["plan"]["decisive"] = ["slow"]
        order["plan"]["kinds"] = [each for each in order["plan"]["kinds"] if each["kind"] == "slow"]
        content["order"] = json.dumps(order)
        with warehouse.connect(self.home.warehouse) as con:
            con.execute(
                "update raw.rollouts set record = $record "
                "where rollout_id = $id and step = 'intended'",
                {"record": json.dumps(content), "id": rollout.id},
            )
        tags = {version_tags.ROLLOUT_TAG: self.rollout().order}
        registry.tag_version(self.workload, rollout.intention.version, tags)
        return canary_rollouts.order_of(self.rollout()).plan

    def report(self, state: str, reason: str = "", **changes: Any) -> Path:
        """Write in the gateway's place how the newest canary stands."""
        rollout = self.rollout()
        content: dict[str, Any] = {
            "id": rollout.id,
            "workload": self.workload,
            "version": rollout.intention.version,
            "champion": rollout.intention.champion,
            "state": state,
            "reason": reason or f"why it is {state}",
            "began_at": datetime.now(UTC).isoformat(),
            "ended_at": None,
            "verdict": None,
            "history": [],
            "shadow": None,
        }
        file = rollout_reports.rollout_file(self.home, self.workload)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(content | changes))
        return file

    def report_counts(self, slow: tuple[int, int], elapsed: float = 3600.0) -> str:
        """Write the verdict on these counts of slow conversations, canary's and champion's."""
        plan = canary_rollouts.order_of(self.rollout()).plan
        bad, none = frozenset[BadKind]({"slow"}), frozenset[BadKind]()
        lines = [
            AnswerLine(elapsed, f"{arm} {n}", 0.5, arm, bad if n < total else none, None)
            for arm, total in zip(ARMS, slow, strict=True)
            for n in range(max(slow))
        ]
        evidence = rollout_reports.evidence_file(self.home, self.rollout().id)
        evidence.parent.mkdir(parents=True, exist_ok=True)
        evidence.write_bytes(b"".join(map(rollout_evidence.to_bytes, lines)))
        arms = ArmCounts(*slow)
        counts = RolloutCounts({0.5: ArmCounts(max(slow), max(slow))}, {"slow": {0.5: arms}})
        verdict = decide(plan, counts, elapsed)
        kinds = {
            each.kind: {
                "canary": each.canary,
                "champion": each.champion,
                "worse": each.worse,
                "within": each.within,
                "ratio_low": each.ratio_low,
                "ratio_high": each.ratio_high,
            }
            for each in verdict.kinds
        }
        history = [{"at": datetime.now(UTC).isoformat(), "share": 0.5, "kinds": kinds}]
        self.report(
            verdict.outcome,
            verdict.reason,
            verdict=json.loads(json.dumps(asdict(verdict))),
            history=history,
            evidence_bytes=evidence.stat().st_size,
        )
        return verdict.outcome


def canary_of_a_third(home: Settings, workload: str) -> CanaryHome:
    """Make two versions champion, one after the other, and the third a canary."""
    made = CanaryHome(home, workload)
    made.describe(serve={"rollout": "immediate"})
    made.approve(1)
    made.approve(2)
    made.describe()
    made.serve()
    made.approve(3)
    assert made.aliases() == Aliases(champion="2", previous="1", canary="3")
    return made
