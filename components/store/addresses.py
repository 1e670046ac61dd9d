"""Addresses as others may see them, in messages, records and pages."""

import re

_LOGIN = re.compile(r"(?<=://)[^/?#\s]*@")
_SECRET_VALUE = re.compile(
    r"(?<=[?&])([^=&\s]*(?:sig|token|secret|passw|pwd|key|credential|auth)[^=&\s]*=)[^&\s'\"]+",
    re.IGNORECASE,
)


def without_secrets(text: str) -> str:
    """Return a text without the logins, signatures and tokens of the addresses in it."""
    return _SECRET_VALUE.sub(r"\1***", _LOGIN.sub("", text)) if "://" in text else text
