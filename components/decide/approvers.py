"""Who may decide, and what proves it: the ``approve`` section of a workload's file."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field, StringConstraints, field_validator, model_validator

from components.decide import allowed_signers
from components.decide.allowed_signers import Line, Signer
from components.decide.rules import Person, Proof, Rules
from components.schema import Config

Name = Annotated[str, StringConstraints(pattern=r"^\w[\w .@+-]{0,62}$")]
"""A person's name: letters, digits and ``_ . @ + -`` and blanks."""


class Approver(Config):
    """One person who may decide."""

    name: Name
    """As it is typed into the form."""

    # Prefect copies what a task is given, and takes anything with ``keys`` for a mapping.
    public_keys: tuple[str, ...] = Field(default=(), alias="keys")
    """The person's public SSH keys, each as its ``.pub`` file has it; for ``proof: signature``."""

    secret_env: str | None = Field(default=None, min_length=1)
    """The environment variable, of the worker, that holds the secret of this person's codes.
    Without it the secret is what ``flywheel approver add`` has put into the home."""

    @model_validator(mode="before")
    @classmethod
    def _has_no_block(cls, given: object) -> object:
        if isinstance(given, Mapping) and "secret_block" in given:
            raise ValueError(
                "secret_block is not taken any more: Prefect gives the content of a block to "
                "anybody who asks its API, so whoever reaches it could make codes. Remove it, and "
                "run `flywheel approver add NAME`, which draws a new secret and keeps it in the "
                "home (0600); or name a variable of the worker as secret_env; or use "
                "proof: signature"
            )
        return given

    @field_validator("public_keys")
    @classmethod
    def _are_keys(cls, public_keys: tuple[str, ...]) -> tuple[str, ...]:
        for key in public_keys:
            allowed_signers.public_key(key)
        return public_keys


class Approving(Config):
    """Who may decide; whoever reaches the form where nobody is listed."""

    approvers: tuple[Approver, ...] = ()
    """Only they can approve or reject; left out anybody can, under any name."""

    proof: Proof = "name"
    """What each answer must carry to prove the name. ``name``: nothing, whoever reaches the form
    can give another's. ``code``: a one-time code, which proves that somebody who has the person's
    secret was there, and not what was said: who can write Prefect's database can turn a rejection
    into an approval. ``signature``: the person's SSH key signs all that is decided, so that nobody
    else can. Was ``codes: true``, which means ``code``."""

    allowed_signers: Path | None = None
    """A file of the approvers' keys as OpenSSH reads it, relative to the workload's file; beside
    the ``keys`` that are listed here."""

    four_eyes: bool = False
    """Whether two different people have to approve; one rejection ends it."""

    refuse_starter: bool = False
    """Whether a person who started the turn by hand may not approve what came of it. A turn that is
    started by hand must then say by whom: ``flywheel turn --as NAME``."""

    @model_validator(mode="before")
    @classmethod
    def _reads_codes(cls, given: object) -> object:
        """Read ``codes``, as older files name the proof."""
        if not isinstance(given, Mapping) or "codes" not in given:
            return given
        told = {str(name): value for name, value in given.items() if name != "codes"}
        codes = given["codes"]
        if codes not in (True, False):
            raise ValueError(f"codes: expected true or false, found {codes!r}")
        meant = "code" if codes else "name"
        if told.setdefault("proof", meant) != meant:
            raise ValueError(
                f"codes: {str(codes).lower()} means proof: {meant}, and proof is {told['proof']}; "
                "leave codes out"
            )
        return told

    @model_validator(mode="after")
    def _can_be_met(self) -> "Approving":
        """Refuse what nobody could ever meet."""
        listed = Counter(one.name for one in self.approvers)
        if twice := [name for name, times in listed.items() if times > 1]:
            raise ValueError(f"approvers: {', '.join(twice)} is listed more than once, wants once")
        held = Counter(one.secret_env for one in self.approvers if one.secret_env)
        if shared := [place for place, times in held.items() if times > 1]:
            raise ValueError(
                f"approvers: {', '.join(shared)} is the secret of more than one, who could then "
                "answer for each other; wants one each"
            )
        if self.four_eyes and len(listed) < 2:
            raise ValueError(
                f"four_eyes wants two approvers or more, found {len(listed)} under approvers"
            )
        if self.proof != "name" and not listed:
            raise ValueError(
                f"{self.proof}s prove who of the approvers it is: list them under approvers"
            )
        return self

    @model_validator(mode="after")
    def _names_nothing_idle(self) -> "Approving":
        """Refuse what would do nothing."""
        idle = [one.name for one in self.approvers if one.secret_env]
        if idle and self.proof != "code":
            raise ValueError(
                f"approvers: {', '.join(idle)} has a secret that nothing reads; set proof: code"
            )
        keyed = [one.name for one in self.approvers if one.public_keys]
        if self.proof != "signature" and (keyed or self.allowed_signers):
            who = ", ".join(keyed) or "allowed_signers"
            raise ValueError(f"approvers: {who} has keys that nothing reads; set proof: signature")
        return self

    def find(self, name: str) -> Approver | None:
        """Find an approver by name; ``None`` if it is not listed."""
        return next((one for one in self.approvers if one.name == name), None)

    def rules(self) -> Rules:
        """Return the rules in force, with each person's keys; reads ``allowed_signers``.

        Raises:
            ValueError: The file can't be read, somebody who has to sign has no key, or two people
                have the same.
        """
        lines = self._lines()
        people = tuple(Person(one.name, _signers(one, lines)) for one in self.approvers)
        without = [one.name for one in people if not one.signers]
        if self.proof == "signature" and without:
            raise ValueError(
                f"approvers: {', '.join(without)} has no key to sign with; list the line of a .pub "
                "file under keys, or name a file as allowed_signers"
            )
        _require_own(people)
        return Rules(self.proof, self.four_eyes, self.refuse_starter, people)

    def _lines(self) -> list[Line]:
        if self.allowed_signers is None:
            return []
        try:
            return allowed_signers.parse(self.allowed_signers.read_text())
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"allowed_signers: {self.allowed_signers}: {error}") from error


def _signers(one: Approver, lines: list[Line]) -> tuple[Signer, ...]:
    own = [allowed_signers.public_key(key) for key in one.public_keys]
    return tuple(dict.fromkeys([*own, *(line.signer for line in lines if line.is_of(one.name))]))


def _require_own(people: tuple[Person, ...]) -> None:
    owners: dict[str, str] = {}
    for one in people:
        for signer in one.signers:
            if (owner := owners.setdefault(signer.key, one.name)) != one.name:
                raise ValueError(
                    f"approvers: {owner} and {one.name} have the same key, and could sign for each "
                    "other; wants one each"
                )
