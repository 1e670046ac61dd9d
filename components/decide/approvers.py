"""Who may decide, and how they prove their name: one-time codes (RFC 6238) or SSH keys."""

import hmac
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field, StringConstraints, field_validator, model_validator
from pyotp import random_base32
from pyotp.totp import TOTP

from components.decide import ssh_signatures
from components.decide.ssh_signatures import Signer, SignerLine
from components.schema import Config

WINDOW = 1
"""Half minutes before and after the present one whose codes are taken."""

REMEMBERED = 20
"""Half minutes within which an old code is called expired, and not wrong."""

ISSUER = "Flywheel"

Refusal: TypeAlias = Literal["code_missing", "code_wrong", "code_expired", "code_reused"]


def draw_secret() -> str:
    """Draw the secret of one person: 160 bits in base32, as RFC 4226 recommends."""
    return random_base32()


def is_secret(text: str) -> bool:
    """Tell whether a text can be the secret: base32 of 128 bits or more."""
    try:
        return len(TOTP(text).byte_secret()) * 8 >= 128
    except ValueError:  # binascii.Error is one
        return False


def uri(secret: str, name: str, *, home: str) -> str:
    """Write the ``otpauth://`` address that an authenticator app reads."""
    return TOTP(secret).provisioning_uri(name=name, issuer_name=f"{ISSUER} {home}".strip())


def check(secret: str, code: str, *, now: datetime, last: int | None) -> int | Refusal:
    """Give the number of the half minute that a code is of, or why it is not taken.

    Args:
        secret: The person's, in base32.
        code: What the person typed; blanks are let pass.
        now: The time (UTC).
        last: The half minute of the last code that was taken of this person.
    """
    typed = "".join(code.split())
    if not typed:
        return "code_missing"
    totp = TOTP(secret)
    present = totp.timecode(now)
    near = range(present - WINDOW, present + WINDOW + 1)
    if (found := _of(totp, typed, near)) is None:
        old = _of(totp, typed, range(present - REMEMBERED, present - WINDOW))
        return "code_wrong" if old is None else "code_expired"
    return "code_reused" if last is not None and found <= last else found


def _of(totp: TOTP, typed: str, counters: Iterable[int]) -> int | None:
    """Find the half minute that a code is of, the latest first; compares all in constant time."""
    found: int | None = None
    for counter in counters:
        if hmac.compare_digest(totp.generate_otp(counter).encode(), typed.encode()):
            found = counter
    return found


Proof: TypeAlias = Literal["name", "code", "signature"]
"""What proves who decided. ``name``: it was typed. ``code``: a one-time code; somebody who had the
secret was there, which does not prove what was said. ``signature``: the person's SSH key signed
what was decided."""

STRENGTH: Mapping[str, int] = {"name": 0, "code": 1, "signature": 2}


@dataclass(frozen=True, slots=True)
class Person:
    """One who may decide, and the keys that are this person's."""

    name: str
    signers: tuple[Signer, ...] = ()


@dataclass(frozen=True, slots=True)
class ApprovalRules:
    """Who may decide: whoever reaches the form where nobody is listed."""

    proof: Proof = "name"
    four_eyes: bool = False
    refuse_starter: bool = False
    people: tuple[Person, ...] = ()

    @property
    def wanted(self) -> int:
        """How many different people have to approve."""
        return 2 if self.four_eyes else 1

    def find(self, name: str) -> Person | None:
        """Find a person by name; ``None`` if it is not listed."""
        return next((one for one in self.people if one.name == name), None)


OPEN = ApprovalRules()
"""What holds where a workload's file says nothing."""


def write_rules(rules: ApprovalRules) -> str:
    """Write rules as one line of JSON, its keys in order: what the chain holds of them."""
    told = {
        "four_eyes": rules.four_eyes,
        "people": [
            {"name": one.name, "keys": [_write_signer(signer) for signer in one.signers]}
            for one in rules.people
        ],
        "proof": rules.proof,
        "refuse_starter": rules.refuse_starter,
    }
    return json.dumps(told, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def read_rules(text: str) -> ApprovalRules:
    """Read rules back from the chain."""
    told: dict[str, Any] = json.loads(text)
    people = tuple(
        Person(one["name"], tuple(_read_signer(key) for key in one["keys"]))
        for one in told["people"]
    )
    return ApprovalRules(told["proof"], told["four_eyes"], told["refuse_starter"], people)


def _write_signer(signer: Signer) -> dict[str, str]:
    times = {"valid_after": signer.valid_after, "valid_before": signer.valid_before}
    said = {name: f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}" for name, at in times.items() if at}
    return {"key": signer.key, **said}


def _read_signer(told: Mapping[str, str]) -> Signer:
    after, before = (
        datetime.fromisoformat(told[name]) if name in told else None
        for name in ("valid_after", "valid_before")
    )
    return Signer(told["key"], after, before)


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
            ssh_signatures.public_key(key)
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

    def rules(self) -> ApprovalRules:
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
        return ApprovalRules(self.proof, self.four_eyes, self.refuse_starter, people)

    def _lines(self) -> list[SignerLine]:
        if self.allowed_signers is None:
            return []
        try:
            return ssh_signatures.parse(self.allowed_signers.read_text())
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"allowed_signers: {self.allowed_signers}: {error}") from error


def _signers(one: Approver, lines: list[SignerLine]) -> tuple[Signer, ...]:
    own = [ssh_signatures.public_key(key) for key in one.public_keys]
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
