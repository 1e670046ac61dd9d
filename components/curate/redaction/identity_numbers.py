"""Patterns of cards, accounts, national ids and IP addresses, verified by check digits."""

import ipaddress
import re
from collections.abc import Callable, Sequence
from functools import cache
from types import ModuleType

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

from components.curate.redaction.patterns import (
    Check,
    Kind,
    Value,
    before,
    digits_of,
    pattern,
    value_of,
)

_CARDS = (
    ((13, 16, 19), "4"),
    ((16,), "51-55 2221-2720"),
    ((15,), "34 37 1800 2131"),
    (range(16, 20), "6011 644-659 622126-622925 3528-3589"),
    ((14, 16), "300-305 36 38-39"),
    (range(12, 20), "5018 5020 5038 56-58 6304 67"),
)
CARD_LENGTHS = tuple(
    (prefix.split("-")[0], prefix.split("-")[-1], lengths)
    for lengths, prefixes in _CARDS
    for prefix in prefixes.split()
)
"""First and last prefix of an issuer's cards, and their numbers of digits."""


def _sums_to_zero(scheme: ModuleType) -> Callable[[str], bool]:
    return lambda digits: scheme.checksum(digits) == 0


luhn = _sums_to_zero(iso_7812)  # ISO/IEC 7812-1, annex B: cards, Canada
dutch = _sums_to_zero(bsn)  # the BSN's eleven test
british_health = _sums_to_zero(nhs)  # the NHS number's modulus 11
indian = _sums_to_zero(verhoeff)  # Aadhaar


def is_card(digits: str) -> bool:
    """Check prefix, length and check digit of a payment card."""
    return luhn(digits) and any(
        first <= digits[: len(first)] <= last and len(digits) in lengths
        for first, last, lengths in CARD_LENGTHS
    )


def normal_iban(text: str) -> str | None:
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


MAX_GROUPS = 20  # a card has at most this many digits, so at most this many groups

CARD_WORDS = re.compile(r"card|visa|maestro|mastercard|amex|credit|debit|payment|pay with")
SSN_WORDS = re.compile(r"\bssn\b|social security|social-security")
SSN_GATE = "(?i)ssn|social.security|[0-9]{3}-[0-9]{2}-[0-9]{4}"
ID_GATE = (
    "(?i)passport|licen[cs]e|national id|identity card|id card|tax id|tax number|pesel|bsn|nhs"
    "|aadhaa?r|(?:sin|cpf)[^a-z0-9_]|social insurance|codice fiscale"
)
ID_WORDS = re.compile(
    r"(?:passport|driver'?s? licen[cs]e|driving licen[cs]e|national id|identity card|id card"
    r"|tax id|tax number|pesel|bsn|nhs|aadhaar|aadhar|\bsin\b|\bcpf\b"
    r"|social insurance|codice fiscale)"
)
VERSION_WORDS = re.compile(
    r"(?:\bv|\bversion|\bver|\brelease|\bbuild|[a-z]/|§|\bsection|\bchapter) ?\.?$"
)
IP_WORDS = re.compile(r"\bip\b|address|host|server|://")


def cards(match: re.Match[str]) -> list[Value]:
    """Return the payment card numbers in a run of digits.

    Each is one group, or several as on cards; lengths other than 14 to 16 count only after a word
    for cards.
    """
    lengths = range(12, 20) if CARD_WORDS.search(before(match)) else range(14, 17)
    text = match.group()
    groups = [(group.start(), group.end()) for group in re.finditer("[0-9]+", text)]
    values: list[Value] = []
    first = 0
    while first < len(groups):
        groups_of_card, digits = _card(text, groups[first : first + MAX_GROUPS], lengths)
        if groups_of_card:
            start, (_, end) = groups[first][0], groups[first + groups_of_card - 1]
            values.append(Value(match.start() + start, match.start() + end, digits))
        first += groups_of_card or 1
    return values


def _card(text: str, groups: Sequence[tuple[int, int]], lengths: range) -> tuple[int, str]:
    """Return the number of groups and the digits of the card that begins here; 0 without a card."""
    digits = ""
    for number, (start, end) in enumerate(groups, 1):
        if digits and end - start < 3 and len(digits) < 12:
            break
        digits += text[start:end]
        if len(digits) > lengths[-1] or (number == 1 and 4 != len(digits) < 12):
            break
        if len(digits) in lengths and is_card(digits):
            return number, digits
    return 0, ""


def iban(match: re.Match[str]) -> Value | None:
    """Return a valid IBAN of the country's length."""
    start, _, text = value_of(match)
    account = normal_iban("".join(character for character in text if character.isalnum()))
    if account is None:
        return None
    counted = 0
    for place, character in enumerate(text):
        counted += character.isalnum()
        if counted == len(account):
            rest = text[place + 1 : place + 2]
            return None if rest.isalnum() else Value(start, start + place + 1, account)
    return None


def ssn(match: re.Match[str]) -> Value | None:
    """Return an American social security number; without hyphens only after a word for it."""
    start, end, text = value_of(match)
    digits = digits_of(text)
    if (
        digits[:3] in ("000", "666")
        or digits[0] == "9"
        or digits[3:5] == "00"
        or digits[5:] == "0000"
    ):
        return None
    is_marked = text.count("-") == 2 or SSN_WORDS.search(before(match))
    return Value(start, end, digits) if is_marked else None


def checked(holds: Callable[[str], bool]) -> Check:
    """Return a check for a valid check digit; the key has no punctuation."""

    def check(match: re.Match[str]) -> Value | None:
        start, end, text = value_of(match)
        bare = "".join(character for character in text if character.isalnum()).upper()
        return Value(start, end, bare) if holds(bare) else None

    return check


def named(holds: Callable[[str], bool]) -> Check:
    """Return a check for a valid check digit after a word for the number."""
    check = checked(holds)

    def check_named(match: re.Match[str]) -> Value | list[Value] | None:
        return check(match) if ID_WORDS.search(before(match)) else None

    return check_named


def short_identity(digits: str) -> bool:
    """Check a number of nine digits (Canada, the Netherlands)."""
    return luhn(digits) or dutch(digits)


def long_identity(digits: str) -> bool:
    """Check a number of ten to twelve digits (Britain's NHS, Poland, Brazil, India)."""
    if len(digits) == 11:
        return polish(digits) or brazilian(digits)
    return {10: british_health, 12: indian}[len(digits)](digits)


def document(match: re.Match[str]) -> Value:
    """Return a passport's or licence's number, which has no check digit."""
    start, end, text = value_of(match)
    return Value(start, end, text.upper())


def ipv4(match: re.Match[str]) -> Value | None:
    """Return an address that may be a person's: not a loopback, a mask or a version."""
    start, end, text = value_of(match)
    octets = [int(part) for part in text.split(".")]
    context = before(match)
    if octets[0] in (0, 127, 255) or VERSION_WORDS.search(context):
        return None
    if max(octets) < 20 and not IP_WORDS.search(context):
        return None
    return Value(start, end, text)


def ipv6(match: re.Match[str]) -> Value | None:
    """Return an address that may be a person's."""
    start, end, text = value_of(match)
    try:
        ip_address = ipaddress.IPv6Address(text)
    except ValueError:
        return None
    digits = [character for character in text if character != ":"]
    is_plausible = len(digits) >= 5 and any(character.isdigit() for character in digits)
    return Value(start, end, ip_address.exploded) if is_plausible else None


OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"

BETWEEN_GROUPS = "(?: {0,2}| ?[.-] ?)"  # of a card's digits
IBAN_COUNTRIES = "|".join(country for _, country, *_ in numdb.get("iban").prefixes)

PATTERNS = (
    pattern(
        Kind.IBAN,
        iban,
        # The lookbehind comes last: each of a text's letters would try it.
        r"[A-Za-z]{2}[0-9]{2}(?<![A-Za-z0-9][A-Za-z]{2}[0-9]{2})(?:[ -]?[A-Za-z0-9]){11,30}",
        rf"(?:^|[^0-9A-Za-z])(?i:{IBAN_COUNTRIES})[0-9]{{2}}(?:[ -]?[0-9A-Za-z]){{11}}",
    ),
    pattern(
        Kind.CARD,
        cards,
        # A comma, as in CSV, and an expiry date, as in 4111.../12, may follow.
        rf"(?<![\w.+/-])[0-9](?:{BETWEEN_GROUPS}[0-9]){{11,}}"
        r"(?![\w-]|/(?!(?:0[1-9]|1[0-2])(?![0-9]))|\.[0-9])",
        rf"[1-6](?:{BETWEEN_GROUPS}[0-9]){{11}}",
    ),
    pattern(
        Kind.SSN,
        ssn,
        r"(?<![\w.+-])[0-9]{3}([ -]?)[0-9]{2}\1[0-9]{4}(?![\w-])",
        r"[0-9]{3}[ -]?[0-9]{2}[ -]?[0-9]{4}",
        SSN_GATE,
    ),
    pattern(
        Kind.NATIONAL_ID,
        checked(spanish),
        r"(?<![\w-])(?:[0-9]{8}|[XYZ]-?[0-9]{7})-?[A-HJ-NP-TV-Z](?![\w-])",
        r"[0-9]{7}[ -]?[A-Z]",
    ),
    pattern(
        Kind.NATIONAL_ID,
        checked(italian),
        r"(?<!\w)[A-Z]{6}[0-9]{2}[A-EHLMPRST][0-9]{2}[A-Z][0-9]{3}[A-Z](?!\w)",
        r"[A-Z]{6}[0-9]{2}[A-Z][0-9]{2}[A-Z]",
    ),
    pattern(
        Kind.NATIONAL_ID,
        checked(brazilian),
        r"(?<![\w.-])[0-9]{3}\.[0-9]{3}\.[0-9]{3}-[0-9]{2}(?![\w-])",
        r"[0-9]{3}\.[0-9]{3}\.[0-9]{3}-[0-9]{2}",
    ),
    pattern(
        Kind.NATIONAL_ID,
        checked(french),
        r"(?<![\w.-])[12] ?[0-9]{2} ?[0-9]{2} ?[0-9]{2} ?[0-9]{3} ?[0-9]{3} ?[0-9]{2}(?![\w-])",
        r"[12] ?[0-9]{2} ?[0-9]{2} ?[0-9]{2} ?[0-9]{3} ?[0-9]{3} ?[0-9]{2}",
    ),
    pattern(
        Kind.NATIONAL_ID,
        checked(lambda _: True),
        r"(?<![\w-])(?!BG|GB|NK|KN|TN|NT|ZZ)[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z]"
        r" ?[0-9]{2} ?[0-9]{2} ?[0-9]{2} ?[A-D](?![\w-])",
        r"[A-Z]{2} ?[0-9]{2} ?[0-9]{2} ?[0-9]{2} ?[A-D]",
    ),
    pattern(
        Kind.NATIONAL_ID,
        named(short_identity),
        r"(?<![\w.+-])[0-9]{3}([ -]?)[0-9]{3}\1[0-9]{3}(?![\w-])(?! [0-9])",
        r"[0-9]{3}[ -]?[0-9]{3}[ -]?[0-9]{3}",
        ID_GATE,
    ),
    pattern(
        Kind.NATIONAL_ID,
        named(long_identity),
        r"(?<![\w.+-])[0-9]{3,4}[ -]?[0-9]{3,4}[ -]?[0-9]{4}(?![\w-])(?! [0-9])",
        r"[0-9]{3,4}[ -]?[0-9]{3,4}[ -]?[0-9]{4}",
        ID_GATE,
    ),
    pattern(
        Kind.NATIONAL_ID,
        document,
        r"(?i)(?:passport|driver'?s? licen[cs]e|driving licen[cs]e)(?: (?:number|no\.?|#|id))?"
        r"(?: is|:| -)? ?#?(?P<value>(?=[A-Z]*[0-9])[A-Z0-9][A-Z0-9-]{5,16})(?![\w-])",
        r"(?i)passport|licen[cs]e",
    ),
    pattern(
        Kind.IP,
        ipv4,
        rf"(?<![\w.-]){OCTET}(?:\.{OCTET}){{3}}(?![\w-]|\.[0-9])",
        r"[0-9]\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]",
    ),
    pattern(
        Kind.IP,
        ipv6,
        r"(?i)(?<![\w:.])[0-9a-f]{0,4}(?::[0-9a-f]{0,4}){2,7}(?![\w:])",
        r"(?i)[0-9a-f]::|::[0-9a-f]|(?:[0-9a-f]{1,4}:){7}",
    ),
)
