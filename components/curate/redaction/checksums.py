"""Check digits of cards, accounts and identity numbers: what tells them from any other number.

Of an identity number only the check digit is held to python-stdnum, not the birth date in it: what
looks like one is redacted.
"""

import re
from functools import cache

from stdnum import iban as iso_13616
from stdnum import luhn as iso_7812
from stdnum import numdb, verhoeff
from stdnum.br import cpf
from stdnum.es import dni, nie
from stdnum.fr import nir
from stdnum.gb import nhs
from stdnum.it import codicefiscale
from stdnum.nl import bsn
from stdnum.pl import pesel

CARD_LENGTHS: tuple[tuple[str, str, tuple[int, ...]], ...] = (
    ("4", "4", (13, 16, 19)),
    ("51", "55", (16,)),
    ("2221", "2720", (16,)),
    ("34", "34", (15,)),
    ("37", "37", (15,)),
    ("6011", "6011", (16, 17, 18, 19)),
    ("644", "659", (16, 17, 18, 19)),
    ("622126", "622925", (16, 17, 18, 19)),
    ("3528", "3589", (16, 17, 18, 19)),
    ("300", "305", (14, 16)),
    ("36", "36", (14, 16)),
    ("38", "39", (14, 16)),
    ("1800", "1800", (15,)),
    ("2131", "2131", (15,)),
    ("5018", "5018", (12, 13, 14, 15, 16, 17, 18, 19)),
    ("5020", "5020", (12, 13, 14, 15, 16, 17, 18, 19)),
    ("5038", "5038", (12, 13, 14, 15, 16, 17, 18, 19)),
    ("56", "58", (12, 13, 14, 15, 16, 17, 18, 19)),
    ("6304", "6304", (12, 13, 14, 15, 16, 17, 18, 19)),
    ("67", "67", (12, 13, 14, 15, 16, 17, 18, 19)),
)
"""First and last prefix of an issuer's cards, and how many digits they have."""


def luhn(digits: str) -> bool:
    """Check the Luhn digit (ISO/IEC 7812-1, annex B)."""
    return iso_7812.checksum(digits) == 0


def is_card(digits: str) -> bool:
    """Check prefix, length and check digit of a payment card."""
    return luhn(digits) and any(
        first <= digits[: len(first)] <= last and len(digits) in lengths
        for first, last, lengths in CARD_LENGTHS
    )


def iban(text: str) -> str | None:
    """Return the IBAN that ``text`` (letters and digits only) begins with (ISO 13616)."""
    start = text[: _iban_length(text[:2].upper())].upper()
    return start if start and iso_13616.is_valid(start, check_country=False) else None


@cache
def _iban_length(country: str) -> int:
    """Return the number of characters by SWIFT's registry, 0 for a country without IBANs."""
    ((_, registered), *_) = numdb.get("iban").info(country)
    parts = re.findall("[0-9]+", registered["bban"]) if registered else []
    return 4 + sum(map(int, parts)) if parts else 0


def spanish(text: str) -> bool:
    """Check the letter of a Spanish DNI or NIE."""
    kind = nie if text[0] in "XYZ" else dni
    return text[-1] == kind.calc_check_digit(text[:-1])


def italian(text: str) -> bool:
    """Check the last letter of an Italian codice fiscale."""
    return text[-1] == codicefiscale.calc_check_digit(text[:-1])


def french(digits: str) -> bool:
    """Check the key of a French social security number."""
    return digits[13:] == nir.calc_check_digits(digits)


def brazilian(digits: str) -> bool:
    """Check both digits of a Brazilian CPF."""
    return len(set(digits)) > 1 and cpf.is_valid(digits)


def polish(digits: str) -> bool:
    """Check the last digit of a Polish PESEL."""
    return digits[-1] == pesel.calc_check_digit(digits[:-1])


def dutch(digits: str) -> bool:
    """Check a Dutch BSN (the eleven test)."""
    return bsn.checksum(digits) == 0


def british_health(digits: str) -> bool:
    """Check the last digit of an NHS number (modulus 11)."""
    return nhs.checksum(digits) == 0


def indian(digits: str) -> bool:
    """Check the last digit of an Aadhaar number (Verhoeff's scheme)."""
    return verhoeff.checksum(digits) == 0
