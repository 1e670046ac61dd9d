"""A home with registered and approved versions of a tiny base, and a real MLflow server."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import pytest

from components import scorecard
from components.decide import decision_log
from components.decide.decision_log import LogEvent
from components.evaluate.settings import EvaluationSettings
from components.evaluate.task_metrics import CALL_METRICS
from components.gate import evidence_folder
from components.gate.evidence_folder import Evidence, EvidenceSubject
from components.gate.judgement import Judgement
from components.gate.policy import Policy
from components.models import base as bases
from components.register import tracking
from components.store import manifest, warehouse
from components.store.ledger import Decision
from components.store.manifest import folder_digest
from flows import promote, promotion
from flows.settings import Settings
from flows.workload_file import Workload
from tests.support import adapter_folders, cards, mlflow_stores, tiny, warehouses
from tests.support.adapter_folders import NOW

LABELS = ("card", "loan")  # what the versions were held to in their evaluation

PASSED = Judgement("pass", ("better",), "correct_name")


@dataclass(frozen=True)
class ApprovedVersions:
    """A home, its MLflow server, and what registers and approves versions in them."""

    home: Settings
    base: Path
    url: str
    change: Callable[[Path], None] | None = None
    """What is changed in the folders of adapters, as if they had been trained so."""

    def register(self, workload: str, number: int, *, is_approved: bool = True) -> Evidence:
        """Register an adapter of its own weights, approve it, and make it champion."""
        evidence = self.ask(workload, number)
        if is_approved:
            decision = self.approve(evidence)
            promotion.promote_version(self.described(workload), evidence, decision, lambda: None)
        return evidence

    def ask(self, workload: str, number: int, opponent: str = "base") -> Evidence:
        """Register an adapter of its own weights as the challenger of an opponent."""
        evidence = self._evidence(workload, number, opponent)
        promote.challenge_task.fn(self.described(workload), evidence)
        return evidence

    def described(self, workload: str) -> Workload:
        """Return what a file of a base alone describes."""
        content = {"workload": workload, "base": str(self.base)}
        return Workload.model_validate(content, context=self.base.parent)

    def approve(self, evidence: Evidence) -> Decision:
        """Write an approval into the chain of decisions."""
        name = evidence.subject.workload
        with warehouse.connect(self.home.warehouse) as con, warehouse.transaction(con):
            event = ("approve", name, evidence.digest, "run", NOW, "ann", "good")
            decision_log.append_event(con, LogEvent(*event))
        return Decision(name, evidence.digest, "approve", "ann", "good", "run", NOW)

    def _evidence(self, workload: str, number: int, opponent: str) -> Evidence:
        key, home = f"ada{number:013d}", self.home
        snapshot = self.base.parent / "5af1"
        if not snapshot.exists():
            adapter_folders.snapshot(snapshot)
        adapter = home.adapters / workload / key
        adapter_folders.adapter(self.base, snapshot, adapter, r=2 * number, lora_alpha=number)
        if self.change:
            self.change(adapter)
            manifest.finish_again(adapter)
        settings = EvaluationSettings(precision="fp32", max_new_tokens=8).model_dump(mode="json")
        held = {"labels": [*LABELS], scorecard.CONSTRAINED: "answer grammar 1"}
        conditions = {**cards.CONDITIONS, "settings": settings, **held}
        body = {"base": "b", "adapter": key, "task": scorecard.HOLDOUT, "conditions": conditions}
        card = home.scorecards / workload / f"c{number}"
        scorecard.write(card, [cards.sample(0, 1.0)], CALL_METRICS, body=body, now=NOW)
        tracking.open_run(workload, key, params={}, tags={})
        subject = EvidenceSubject(
            workload, "5af1", "v1", bases.content_hash(self.base), key, opponent, card.name, "c0"
        )
        subject = replace(subject, adapter_bytes=folder_digest(adapter))
        folder = home.evidence / workload / evidence_folder.digest(subject, PASSED, Policy())
        folder.mkdir(parents=True)
        return evidence_folder.finish(folder, subject, PASSED, Policy(), {}, brief="", now=NOW)


@contextmanager
def mlflow_server(folder: Path, port: int = 0) -> Generator[str]:
    """Run MLflow's server, which keeps its artifacts itself; yield its address."""
    folder.mkdir(parents=True, exist_ok=True)
    with socket.create_server(("127.0.0.1", port)) as listener:
        port = int(listener.getsockname()[1])
    url = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1"),
            *("--port", str(port), "--workers", "1"),
            *("--backend-store-uri", f"sqlite:///{folder}/mlflow.db"),
            *("--artifacts-destination", str(folder / "artifacts"), "--serve-artifacts"),
        ],
        cwd=folder,
        env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 300
        while True:
            try:
                if httpx.get(f"{url}/health").is_success:
                    break
            except httpx.TransportError:
                assert time.monotonic() < deadline
                assert process.poll() is None
                time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait()


@contextmanager
def approved_versions(root: Path, *, is_served: bool = True) -> Generator[ApprovedVersions]:
    """Make an empty home that registers at an MLflow server of its own, or in a database."""
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        if is_served:
            url = stack.enter_context(mlflow_server(root / "mlflow"))
        else:
            url = mlflow_stores.create(root)
        patch.setenv("MLFLOW_TRACKING_URI", url)
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        patch.setenv("MLFLOW_ENABLE_ASYNC_TRACE_LOGGING", "false")
        patch.setenv("FLYWHEEL_HOME", str(root / "home"))
        patch.chdir(root)
        warehouses.create(root / "home/warehouse.duckdb")
        base = tiny.build(root / "base")
        yield ApprovedVersions(Settings(root / "home", 4200, 5000), base, url)
