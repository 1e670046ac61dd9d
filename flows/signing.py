"""Sign a decision from the terminal, by calling ``ssh-keygen`` with the approver's own key."""

import shutil
import subprocess
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from components import warehouse
from components.decide import hearing, proofs, record, ssh_signature, statement
from components.decide.allowed_signers import Signer
from components.decide.hearing import Answer, Proof, Question
from components.decide.rules import Rules
from components.decide.statement import Statement
from components.folder_digest import folder_digest
from components.gate import evidence
from components.gate.evidence import Evidence
from flows import config as configs
from flows import settings, workload_files, workload_record
from flows.approvals import Pending
from flows.settings import Settings


class SigningError(RuntimeError):
    """A decision could not be signed here."""


def signed(form: Statement, rules: Rules, key: Path | None) -> str:
    """Sign a statement now, as its approver; return its line with the signature below it.

    Raises:
        SigningError: There is no key of this person here, or it would not sign.
    """
    if shutil.which("ssh-keygen") is None:
        raise SigningError("signing: there is no ssh-keygen here; install OpenSSH's client")
    line = replace(form, at=f"{datetime.now(UTC):{statement.AT}}").text
    with _key(key, proofs.signers_of(rules, form.approver), form.approver) as file:
        command = ["ssh-keygen", "-q", "-Y", "sign", "-n", ssh_signature.NAMESPACE, "-f", str(file)]
        made = subprocess.run(
            command,
            input=line.encode(),
            capture_output=True,
            check=False,
        )
    if made.returncode:
        said = made.stderr.decode(errors="replace").strip()
        raise SigningError(f"signing as {form.approver} with {file}: ssh-keygen said: {said}")
    return f"{line}\n{made.stdout.decode()}"


def proof(found: Evidence) -> Proof:
    """Say which whole digests a signed statement on an evidence must name."""
    folder = settings.load().adapters / found.subject.workload / found.subject.adapter
    adapter = found.subject.adapter_bytes or folder_digest(folder)
    return Proof(evidence=evidence.whole_digest(found.folder), adapter=adapter)


def signed_answer(home: Settings, one: Pending, given: Answer, key: Path | None) -> Answer:
    """Sign an answer where the workload's rules want that; else return it as it is.

    What is signed is read from the home, and not from the server that asks.

    Raises:
        SigningError: There is no key of this person here, or it would not sign.
    """
    found = evidence.read(home.evidence / one.workload / one.evidence)
    frozen = workload_record.of_evidence(home.turns, found)
    if frozen is None:
        frozen = configs.read(workload_files.require(home, one.workload))
    rules = workload_record.in_force(home, frozen).approve.rules()
    if rules.proof != "signature":
        return given
    with warehouse.connect(home.warehouse) as con, warehouse.transaction(con):
        under = record.in_force(con, one.workload, rules, now=datetime.now(UTC))
    asked = Question(one.workload, one.evidence, str(one.flow_run_id), 0)
    form = hearing.asked(asked, given, proof(found), under.digest)
    return replace(given, signature=signed(form, rules, key))


@contextmanager
def _key(given: Path | None, signers: Sequence[Signer], name: str) -> Generator[Path]:
    """Find the key to sign with: the given one, one of the agent's, or one in ``~/.ssh``."""
    if given is not None:
        yield given.expanduser()
        return
    listed = {signer.key for signer in signers}
    in_agent = [line for line in _agent() if line.split()[1:2] and line.split()[1] in listed]
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


def _agent() -> list[str]:
    if shutil.which("ssh-add") is None:
        return []
    told = subprocess.run(["ssh-add", "-L"], capture_output=True, text=True, check=False)
    return told.stdout.splitlines() if told.returncode == 0 else []
