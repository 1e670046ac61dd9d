"""Who may decide, and how they prove their name: one-time codes (RFC 6238) or SSH keys."""

import hmac
import json
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, Field, StringConstraints, field_validator, model_validator
from pyotp import random_base32
from pyotp.totp import TOTP

from components.decide import ssh_signatures
from components.decide.ssh_signatures import Signer, SignerLine
from components.schema import Config

WINDOW = 1  # half minutes before and after the current one whose codes are accepted

REMEMBERED = 20  # half minutes within which an old code is reported as expired, not as wrong

ISSUER = "Flywheel"

Refusal: TypeAlias = Literal["code_missing", "code_wrong", "code_expired", "code_reused"]

Proof: TypeAlias = Literal["name", "code", "signature"]
"""The proof of who decided. ``name``: it was typed. ``code``: a one-time code proves that somebody
had the secret, and not what was decided. ``signature``: the person's SSH key signed the
decision."""

STRENGTH: Mapping[str, int] = {"name": 0, "code": 1, "signature": 2}


def _unmistakable(name: str) -> str:
    """Refuse a name that looks like another one: of two scripts, or in another normal form."""
    scripts = {unicodedata.name(letter, "").split()[0] for letter in name if letter.isalpha()}
    if name != unicodedata.normalize("NFKC", name) or len(scripts - EAST_ASIAN) > 1:
        raise ValueError(f"{name!r} mixes scripts or forms of letters, so it can pass for another")
    return name


EAST_ASIAN = frozenset({"CJK", "HIRAGANA", "KATAKANA", "HANGUL", "KATAKANA-HIRAGANA"})
"""Scripts that one name may have together."""

Name = Annotated[
    str,
    StringConstraints(pattern=r"^\w([\w .@+-]{0,61}[\w.@+-])?$"),
    AfterValidator(_unmistakable),
]
"""A person's name: letters of one script, digits and ``_ . @ + -`` and blanks between them."""


def draw_secret() -> str:
    """Draw a person's secret: 160 bits in base32, as RFC 4226 recommends."""
    return random_base32()


def is_secret(text: str) -> bool:
    """Return whether a text is a valid secret: base32 of 128 bits or more."""
    try:
        return len(TOTP(text).byte_secret()) * 8 >= 128
    except ValueError:  # binascii.Error is one
        return False


def uri(secret: str, name: str, *, home: str) -> str:
    """Return the ``otpauth://`` address for an authenticator app."""
    return TOTP(secret).provisioning_uri(name=name, issuer_name=f"{ISSUER} {home}".strip())


def check(secret: str, code: str, *, now: datetime, last: int | None) -> int | Refusal:
    """Return the half minute (counter) of a typed code, or why it is refused.

    ``last`` is the half minute of the person's last accepted code.
    """
    typed = "".join(code.split())
    if not typed:
        return "code_missing"
    totp = TOTP(secret)
    present = totp.timecode(now)
    near = range(present - WINDOW, present + WINDOW + 1)
    if (counter := _counter(totp, typed, near)) is None:
        old = _counter(totp, typed, range(present - REMEMBERED, present - WINDOW))
        return "code_wrong" if old is None else "code_expired"
    return "code_reused" if last is not None and counter <= last else counter


def _counter(totp: TOTP, typed: str, counters: Iterable[int]) -> int | None:
    latest: int | None = None
    for counter in counters:  # all of them, each in constant time
        if hmac.compare_digest(totp.generate_otp(counter).encode(), typed.encode()):
            latest = counter
    return latest


@dataclass(frozen=True, slots=True)
class Person:
    """A person who may decide, with this person's keys."""

    name: str
    signers: tuple[Signer, ...] = ()


@dataclass(frozen=True, slots=True)
class ApprovalRules:
    """The rules for deciding; without ``people`` anybody may decide."""

    proof: Proof = "name"
    four_eyes: bool = False
    refuse_starter: bool = False
    people: tuple[Person, ...] = ()

    @property
    def required(self) -> int:
        """The number of people who must approve."""
        return 2 if self.four_eyes else 1

    def find(self, name: str) -> Person | None:
        """Return a person by name; ``None`` if it is not listed."""
        return next((person for person in self.people if person.name == name), None)


OPEN = ApprovalRules()  # the default rules


def write_rules(rules: ApprovalRules) -> str:
    """Write rules as one line of JSON with sorted keys, for the chain."""
    record = {
        "four_eyes": rules.four_eyes,
        "people": [
            {"name": person.name, "keys": [_write_signer(signer) for signer in person.signers]}
            for person in rules.people
        ],
        "proof": rules.proof,
        "refuse_starter": rules.refuse_starter,
    }
    return json.dumps(record, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def read_rules(text: str) -> ApprovalRules:
    """Parse rules from the chain."""
    record: dict[str, Any] = json.loads(text)
    people = tuple(
        Person(person["name"], tuple(_read_signer(key) for key in person["keys"]))
        for person in record["people"]
    )
    return ApprovalRules(record["proof"], record["four_eyes"], record["refuse_starter"], people)


def _write_signer(signer: Signer) -> dict[str, str]:
    times = {"valid_after": signer.valid_after, "valid_before": signer.valid_before}
    set_times = {n: f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}" for n, at in times.items() if at}
    return {"key": signer.key, **set_times}


def _read_signer(record: Mapping[str, str]) -> Signer:
    after, before = (
        datetime.fromisoformat(record[name]) if name in record else None
        for name in ("valid_after", "valid_before")
    )
    return Signer(record["key"], after, before)


class Approver(Config):
    """A person who may decide."""

    name: Name
    """As it is typed into the form."""

    # Prefect copies the arguments of tasks, and treats anything with ``keys`` as a mapping.
    public_keys: tuple[str, ...] = Field(default=(), alias="keys")
    """The person's public SSH keys, each as its ``.pub`` file has it; for ``proof: signature``."""

    secret_env: str | None = Field(default=None, min_length=1)
    """The worker's environment variable with the secret of this person's codes. Without it the
    secret is the one that ``flywheel approver add`` has stored in the home."""

    @field_validator("public_keys")
    @classmethod
    def _are_keys(cls, public_keys: tuple[str, ...]) -> tuple[str, ...]:
        for key in public_keys:
            ssh_signatures.public_key(key)
        return public_keys


class Approving(Config):
    """The ``approve`` section: who may decide; anybody if nobody is listed."""

    approvers: tuple[Approver, ...] = ()
    """Only these people can approve or reject; by default anybody can, under any name."""

    proof: Proof = "name"
    """How each answer must prove the name. ``name``: not at all, anybody at the form can enter
    another's. ``code``: a one-time code proves that somebody had the person's secret, and not
    what was decided: with write access to Prefect's database a rejection can be turned into an
    approval. ``signature``: the person's SSH key signs the whole decision."""

    allowed_signers: Path | None = None
    """A file of approvers' keys in OpenSSH's format, relative to the workload's file; used in
    addition to the ``keys`` listed here."""

    four_eyes: bool = False
    """Whether two different people must approve; one rejection is final."""

    refuse_starter: bool = False
    """Whether the person who started a turn by hand may not approve its result. Such a turn must
    then name the person: ``flywheel turn --as NAME``."""

    @model_validator(mode="after")
    def _can_be_met(self) -> "Approving":
        listed = Counter(approver.name for approver in self.approvers)
        if twice := [name for name, times in listed.items() if times > 1]:
            raise ValueError(
                f"approvers: {', '.join(twice)} is listed more than once, expected once"
            )
        held = Counter(a.secret_env for a in self.approvers if a.secret_env)
        if shared := [place for place, times in held.items() if times > 1]:
            raise ValueError(
                f"approvers: {', '.join(shared)} is the secret of more than one person, who could "
                "then answer for each other; expected one each"
            )
        if self.four_eyes and len(listed) < 2:
            raise ValueError(
                f"four_eyes needs two approvers or more, found {len(listed)} under approvers"
            )
        if self.proof != "name" and not listed:
            raise ValueError(f"proof: {self.proof} identifies approvers: list them under approvers")
        return self

    @model_validator(mode="after")
    def _names_nothing_idle(self) -> "Approving":
        idle = [approver.name for approver in self.approvers if approver.secret_env]
        if idle and self.proof != "code":
            raise ValueError(
                f"approvers: {', '.join(idle)} has a secret that nothing reads; set proof: code"
            )
        keyed = [approver.name for approver in self.approvers if approver.public_keys]
        if self.proof != "signature" and (keyed or self.allowed_signers):
            who = ", ".join(keyed) or "allowed_signers"
            raise ValueError(f"approvers: {who} has keys that nothing reads; set proof: signature")
        return self

    def find(self, name: str) -> Approver | None:
        """Return an approver by name; ``None`` if it is not listed."""
        return next((approver for approver in self.approvers if approver.name == name), None)

    def rules(self) -> ApprovalRules:
        """Return the rules in force, with each person's keys; reads ``allowed_signers``.

        Raises:
            ValueError: The file can't be read, somebody who must sign has no key, or two people
                have the same key.
        """
        lines = self._lines()
        people = tuple(Person(a.name, _signers(a, lines)) for a in self.approvers)
        without = [person.name for person in people if not person.signers]
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


def _signers(approver: Approver, lines: list[SignerLine]) -> tuple[Signer, ...]:
    own = [ssh_signatures.public_key(key) for key in approver.public_keys]
    listed = [line.signer for line in lines if line.is_of(approver.name)]
    return tuple(dict.fromkeys([*own, *listed]))


def _require_own(people: tuple[Person, ...]) -> None:
    owners: dict[str, str] = {}
    for person in people:
        for signer in person.signers:
            if (owner := owners.setdefault(signer.key, person.name)) != person.name:
                raise ValueError(
                    f"approvers: {owner} and {person.name} have the same key, and could sign for "
                    "each other; expected one each"
                )
