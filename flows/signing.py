"""Sign a decision from the terminal, by calling ``ssh-keygen`` with the approver's own key."""

import shutil
import subprocess
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from components.decide import proofs, ssh_signature, statement
from components.decide.allowed_signers import Signer
from components.decide.rules import Rules
from components.decide.statement import Statement


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
