"""What proves an approver's identity: TOTP secrets, and SSH signatures from the terminal."""

import os
import shutil
import subprocess
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from components.decide import approvers, decision_log, record_answer, ssh_signatures, statement
from components.decide.approvers import ApprovalRules, Approver
from components.decide.record_answer import ProofContext, Question, TypedAnswer
from components.decide.ssh_signatures import Signer
from components.decide.statement import Statement
from components.gate import evidence_folder
from components.gate.evidence_folder import Evidence
from components.store import warehouse
from flows import home_workloads, workload_file
from flows.approvals import PendingApproval
from flows.settings import Settings

ONLY_OWNER = 0o600


class SecretError(ValueError):
    """A secret that can't be used, or that must not be overwritten."""


def find_secret(
    home: Settings, approver: Approver, env: Mapping[str, str] = os.environ
) -> str | None:
    """Find the secret of an approver; ``None`` if missing, so that no code is accepted.

    ``SecretError``: it is not a secret for one-time codes, or others may read its file.
    """
    if approver.secret_env:
        secret = env.get(approver.secret_env)
        place = f"the environment variable {approver.secret_env}"
    else:
        path = secret_file(home, approver.name)
        secret, place = _read_secret_file(path), str(path)
    if secret and not approvers.is_secret(secret):
        raise SecretError(
            f"{place} holds no secret for one-time codes, expected base32 of 128 bits or more as "
            f"`flywheel approver add {approver.name}` makes it"
        )
    return secret or None


def secret_file(home: Settings, name: str) -> Path:
    """Return the path of a person's secret."""
    return home.approvers / f"{name}.secret"


def enrol_approver(home: Settings, name: str, *, again: bool) -> str:
    """Draw a person's secret, readable by its owner only; ``again`` replaces an existing one."""
    path = secret_file(home, name)
    home.approvers.mkdir(mode=0o700, parents=True, exist_ok=True)
    if again:
        path.unlink(missing_ok=True)
    drawn = approvers.draw_secret()
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, ONLY_OWNER)
    except FileExistsError as error:
        raise SecretError(
            f"{name} has a secret in {path}; --again replaces it, and codes of the old one end"
        ) from error
    with os.fdopen(descriptor, "w") as written:
        written.write(drawn + "\n")
    return drawn


def _read_secret_file(path: Path) -> str | None:
    if not path.exists():
        return None
    if path.stat().st_mode & 0o077:
        raise SecretError(f"others than its owner may read {path}; chmod 600 it, and enrol again")
    return path.read_text().strip()


class SigningError(RuntimeError):
    """A decision could not be signed here."""


def sign_statement(form: Statement, rules: ApprovalRules, key: Path | None) -> str:
    """Sign a statement now, as its approver; return its line with the signature below it."""
    if shutil.which("ssh-keygen") is None:
        raise SigningError("signing: there is no ssh-keygen here; install OpenSSH's client")
    line = replace(form, at=f"{datetime.now(UTC):{statement.AT}}").text
    with _signing_key(key, decision_log.signers_of(rules, form.approver), form.approver) as file:
        command = ["ssh-keygen", "-q", "-Y", "sign", "-n", ssh_signatures.NAMESPACE]
        command += ["-f", str(file)]
        made = subprocess.run(command, input=line.encode(), capture_output=True, check=False)
    if made.returncode:
        message = made.stderr.decode(errors="replace").strip()
        raise SigningError(f"signing as {form.approver} with {file}: ssh-keygen: {message}")
    return f"{line}\n{made.stdout.decode()}"


def proof(evidence: Evidence) -> ProofContext:
    """Return the full digests that a signed statement on an evidence must name."""
    return ProofContext(
        evidence=evidence_folder.whole_digest(evidence.folder),
        adapter=evidence.subject.adapter_bytes,
    )


def signed_answer(
    home: Settings, pending: PendingApproval, answer: TypedAnswer, key: Path | None
) -> TypedAnswer:
    """Sign an answer if the workload's rules require it; else return it unchanged.

    The signed content is read from the home, not from the server. ``SigningError``: this person has
    no key here, or signing failed.
    """
    evidence = evidence_folder.read(home.evidence / pending.workload / pending.evidence)
    frozen = home_workloads.of_evidence(home, evidence)
    if frozen is None:
        frozen = workload_file.read_workload(home_workloads.require(home, pending.workload))
    rules = home_workloads.in_force(home, frozen).approve.rules()
    if rules.proof != "signature":
        return answer
    with warehouse.connect(home.tables) as con, warehouse.transaction(con):
        under = decision_log.in_force(con, pending.workload, rules, now=datetime.now(UTC))
    question = Question(pending.workload, pending.evidence, str(pending.flow_run_id), 0)
    form = record_answer.expected_statement(question, answer, proof(evidence), under.digest)
    return replace(answer, signature=sign_statement(form, rules, key))


@contextmanager
def _signing_key(key_path: Path | None, signers: Sequence[Signer], name: str) -> Generator[Path]:
    """Find the key to sign with: ``key_path``, one of the agent's, or one in ``~/.ssh``."""
    if key_path is not None:
        yield key_path.expanduser()
        return
    listed = {signer.key for signer in signers}
    in_agent = [line for line in _agent_keys() if line.split()[1:2] and line.split()[1] in listed]
    if in_agent:
        with TemporaryDirectory(prefix="flywheel-") as folder:
            public = Path(folder) / "key.pub"
            public.write_text(in_agent[0] + "\n")
            yield public
        return
    for public in sorted(Path("~/.ssh").expanduser().glob("*.pub")):
        words = public.read_text(errors="replace").split()
        if words[1:2] and words[1] in listed and public.with_suffix("").exists():
            yield public.with_suffix("")
            return
    raise SigningError(
        f"signing as {name}: none of the {len(listed)} key(s) that the rules list for {name!r} is "
        "in the agent or in ~/.ssh; name yours with --key"
    )


def _agent_keys() -> list[str]:
    if shutil.which("ssh-add") is None:
        return []
    listed = subprocess.run(["ssh-add", "-L"], capture_output=True, text=True, check=False)
    return listed.stdout.splitlines() if listed.returncode == 0 else []
