"""What must not stand in a file that people share: secrets, and code that others' hosts send."""

import re

from components.curate.redaction import secrets
from flows.doctor.finding import Finding, wrong

REMOTE_CODE = re.compile(r"(?im)^\s*[\"']?trust_remote_code[\"']?\s*:\s*[\"']?(true|yes|on|1)\b")


def check(name: str, text: str) -> list[Finding]:
    """Look through a YAML file's text."""
    lines = sorted({text.count("\n", 0, place) + 1 for place in _secrets(text)})
    found = [
        wrong(
            name,
            f"line {line} holds what looks like a secret",
            "take it out and change it where it lets in; give it by environment or Prefect block",
        )
        for line in lines
    ]
    if match := REMOTE_CODE.search(text):
        line = text.count("\n", 0, match.start(1)) + 1
        found.append(
            wrong(
                name,
                f"line {line} asks for trust_remote_code: code from a model's folder would run",
                "take it out; convert the model to an architecture that transformers has",
            )
        )
    return found


def _secrets(text: str) -> list[int]:
    """Give where each secret begins."""
    places = [
        value.start
        for pattern in secrets.PATTERNS
        for match in pattern.expression.finditer(text)
        if (checked := pattern.check(match))
        for value in (checked if isinstance(checked, list) else [checked])
    ]
    return places + [text.index(one) for one in secrets.found_by_rules(text) if one in text]
