"""The rules that decisions are heard under, whole: who, what proves a name, and with which keys.

They are a link of the chain of decisions before anybody is asked, so that whoever reads the record
later knows what a decision had to meet, and whose key was whose.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, TypeAlias

from components.decide.allowed_signers import Signer

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
class Rules:
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


OPEN = Rules()
"""What holds where a workload's file says nothing."""


def write(rules: Rules) -> str:
    """Write rules as one line of JSON, its keys in order: what the chain holds of them."""
    told = {
        "four_eyes": rules.four_eyes,
        "people": [
            {"name": one.name, "keys": [_signer(signer) for signer in one.signers]}
            for one in rules.people
        ],
        "proof": rules.proof,
        "refuse_starter": rules.refuse_starter,
    }
    return json.dumps(told, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def read(text: str) -> Rules:
    """Read rules back from the chain."""
    told: dict[str, Any] = json.loads(text)
    people = tuple(
        Person(one["name"], tuple(_read_signer(key) for key in one["keys"]))
        for one in told["people"]
    )
    return Rules(told["proof"], told["four_eyes"], told["refuse_starter"], people)


def _signer(signer: Signer) -> dict[str, str]:
    times = {"valid_after": signer.valid_after, "valid_before": signer.valid_before}
    said = {name: f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}" for name, at in times.items() if at}
    return {"key": signer.key, **said}


def _read_signer(told: Mapping[str, str]) -> Signer:
    after, before = (
        datetime.fromisoformat(told[name]) if name in told else None
        for name in ("valid_after", "valid_before")
    )
    return Signer(told["key"], after, before)
