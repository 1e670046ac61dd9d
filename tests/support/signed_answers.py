"""A small home with evidence and an adapter, and rules under which people sign."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from components.decide import decision_log, record_answer
from components.decide.approvers import ApprovalRules, Approving
from components.decide.chain import Link
from components.decide.record_answer import ProofContext, Question, TypedAnswer
from components.decide.statement import AT
from components.store import warehouse
from components.store.warehouse import Connection
from tests.support import ssh

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
PROOF = ProofContext(evidence="e1" + "0" * 62, adapter="a" * 64)
QUESTION = Question("support", "e1", "run-1", 1)
YES = TypedAnswer("approve", "ada", "good")
NO = TypedAnswer("reject", "ada", "rude to customers", reason="safety", blame="tool=search")


@dataclass(frozen=True)
class Desk:
    """Where decisions are heard, and the keys of those who decide."""

    path: Path
    keys: dict[str, Path]
    rules: ApprovalRules

    def link(self, con: Connection, rules: ApprovalRules | None = None) -> Link:
        """The rules in force, as a link of the chain."""
        with warehouse.transaction(con):
            return decision_log.in_force(con, "support", rules or self.rules, now=NOW)

    def sign(
        self,
        con: Connection,
        answer: TypedAnswer,
        *,
        question: Question = QUESTION,
        key: str | None = None,
        at: datetime = NOW,
        proof: ProofContext = PROOF,
    ) -> TypedAnswer:
        """Let a person sign an answer as the command does."""
        form = record_answer.expected_statement(question, answer, proof, self.link(con).digest)
        line = replace(form, at=f"{at:{AT}}").text
        made = ssh.sign(self.keys[key or answer.approver], line)
        return replace(answer, signature=f"{line}\n{made}")

    def hear(
        self,
        con: Connection,
        answer: TypedAnswer,
        *,
        attempt: int = 1,
        rules: ApprovalRules | None = None,
        proof: ProofContext = PROOF,
        question: Question = QUESTION,
    ) -> tuple[str, str]:
        """Hear an answer a moment later; give what it was recorded as."""
        asked = replace(question, attempt=attempt)
        now = NOW + timedelta(seconds=30)
        link = record_answer.record(con, asked, answer, rules or self.rules, proof, now=now)
        return link.kind, link.reason


def desk(folder: Path, *names: str) -> Desk:
    keys = {name: ssh.keygen(folder / "keys", name) for name in names}
    listed = [{"name": name, "keys": [ssh.public(key)]} for name, key in keys.items()]
    rules = Approving.model_validate({"proof": "signature", "approvers": listed}).rules()
    return Desk(folder / "warehouse.duckdb", keys, rules)
