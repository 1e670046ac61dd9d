"""One-time codes (TOTP, RFC 6238): six digits that change every half minute.

A code is taken in its own half minute, the one before and the one after, for clocks differ; it is
taken once (RFC 6238, section 5.2): never one that is as old as the last that was.
"""

import hmac
from collections.abc import Iterable
from datetime import datetime
from typing import Literal, TypeAlias

from pyotp import random_base32
from pyotp.totp import TOTP

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
