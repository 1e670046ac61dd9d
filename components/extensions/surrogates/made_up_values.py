"""Draw surrogates: made-up values in the form of real ones, and write them in the same spelling.

A surrogate keeps its value's kind, length, separators and case, and what the form reveals: a card's
brand, an account's country, a phone's country code, whether a network is private, a key's prefix,
a public mailbox provider. Everything else is random.
"""

import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from components.curate.redaction import contact, identity_numbers, secret_values
from components.curate.redaction.patterns import Kind, digits_of, plain, word_list
from components.extensions.surrogates import surrogate_names
from components.extensions.surrogates.surrogate_names import DIGITS, LOWER, Chance

TRIES = 1000  # maximum draws of an identity number until it has a valid form, such as a valid month

PROVIDERS = word_list("mail_providers")  # their domains have too many users to identify anyone
MAILBOXES = word_list("mailboxes")  # mailboxes that are not names
SECOND_LEVELS = frozenset({"ac", "co", "com", "edu", "gov", "net", "org"})
UPPER = LOWER.upper()
SYMBOLS = "!#$%*+-=?@^_~"
ORDINAL = re.compile("([0-9]+)(st|nd|rd|th)")
RUN = re.compile(r"[^\W\d_]+|[0-9]+")
LETTERS = re.compile(r"[^\W\d_]+")

CALLING_CODE = re.compile(
    r"1|7|20|27|3[0-469]|4[013-9]|5[1-8]|6[0-6]|8[1246]|9[0-58]|[2-9][0-9]{2}"
)
"""Country calling codes (ITU-T E.164): one digit, two, else three."""

KEPT_OF_SECRETS = re.compile(
    rf"-----[A-Z0-9 ]+-----|^(?:{secret_values.PREFIXES}"
    r"|AKIA|ASIA|AGPA|AIDA|AROA|ANPA|ABIA|ACCA|AIza|eyJ"
    r"|[A-Za-z][A-Za-z0-9+.-]{1,24}://)|(?<=\.)eyJ|\\.|%[0-9A-Fa-f]{2}"
)
"""Parts that show a secret's type, and escapes."""

_KEPT_WORDS = (
    f"{contact.SUFFIXES}|{contact.ROMANCE}|{contact.FRENCH}|N|S|E|W|NE|NW|SE|SW|North|South"
    "|East|West|Apt|Apartment|Suite|Ste|Unit|Floor|Fl|No|#|P|O|PO|Box|bis|de|du|des|la|le|les|d|l"
    "|straße|strasse|platz|allee|weg"
)
KEPT_WORDS = frozenset(_KEPT_WORDS.lower().split("|"))
"""Words of an address that are not names."""

GERMAN_STREET = re.compile("(.+?)(straße|strasse|str|gasse|weg|platz|allee|damm|ufer)")

PAIRS = tuple(f"{n:02}" for n in range(100))


@dataclass(frozen=True, slots=True)
class Identity:
    """An identity number's form, its check, and the endings of which one passes the check."""

    form: re.Pattern[str]
    holds: Callable[[str], bool]
    ends: Sequence[str]


MONTH, DAY = "(?:0[1-9]|1[0-2])", "(?:0[1-9]|[12][0-9]|3[01])"
IDENTITIES = (
    Identity(re.compile("(?:[0-9]{8}|[XYZ][0-9]{7})[A-Z]"), identity_numbers.spanish, UPPER),
    Identity(
        re.compile(f"[A-Z]{{6}}[0-9]{{2}}[A-EHLMPRST](?:{DAY}|[4-7][0-9])[A-Z][0-9]{{3}}[A-Z]"),
        identity_numbers.italian,
        UPPER,
    ),
    Identity(re.compile("[0-9]{11}"), identity_numbers.brazilian, PAIRS),
    Identity(
        re.compile(f"[0-9]{{2}}(?:[02468][1-9]|[13579][0-2]){DAY}[0-9]{{5}}"),
        identity_numbers.polish,
        DIGITS,
    ),
    Identity(re.compile(f"[12][0-9]{{2}}{MONTH}[0-9]{{10}}"), identity_numbers.french, PAIRS),
    Identity(re.compile("[0-9]{9}"), identity_numbers.luhn, DIGITS),
    Identity(re.compile("[0-9]{9}"), identity_numbers.dutch, DIGITS),
    Identity(re.compile("[0-9]{10}"), identity_numbers.british_health, DIGITS),
    Identity(re.compile("[0-9]{12}"), identity_numbers.indian, DIGITS),
    Identity(
        re.compile("(?!BG|GB|NK|KN|TN|NT|ZZ)[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z][0-9]{6}[A-D]"),
        bool,
        "ABCD",
    ),
)
"""A value is of the first identity whose form and check it passes."""


def canonical(kind: Kind, key: str) -> str:
    """Return a value's canonical form: passports are found with and without punctuation."""
    if kind is Kind.NATIONAL_ID:
        return "".join(character for character in key if character.isalnum()).upper()
    return key


def card(value: str, chance: Chance) -> str:
    """Return a card number of the same brand and length, with a valid Luhn digit."""
    if not identity_numbers.is_card(value):
        return _similar(value, chance)
    first, last = next(
        (first, last)
        for first, last, lengths in identity_numbers.CARD_LENGTHS
        if first <= value[: len(first)] <= last and len(value) in lengths
    )
    body = str(chance.between(int(first), int(last)))
    body += "".join(chance.choice(DIGITS) for _ in range(len(value) - len(body) - 1))
    return next(body + digit for digit in DIGITS if identity_numbers.luhn(body + digit))


def iban(value: str, chance: Chance) -> str:
    """Return an account of the same country, with valid check digits (ISO 13616)."""
    account = "".join(map(chance.like, value[4:]))
    turned = "".join(str(int(character, 36)) for character in f"{account}{value[:2]}00")
    return f"{value[:2]}{98 - int(turned) % 97:02}{account}"


def phone(value: str, chance: Chance, *, is_international: bool) -> str:
    """Return a number of as many digits, with the same country code or trunk prefix."""
    code = CALLING_CODE.match(value) if is_international else None
    kept = code.group() if code else ""
    rest = value[len(kept) :]
    is_american = len(rest) == 10 and rest[0] in "23456789" and rest[3] in "23456789"
    digits = [
        chance.choice(DIGITS[2:])
        if is_american and place in (0, 3)
        else digit
        if digit == "0" and place == 0
        else chance.choice(DIGITS[1:])
        if place < 2 and digit != "0"
        else chance.choice(DIGITS)
        for place, digit in enumerate(rest)
    ]
    return kept + "".join(digits)


def ssn(chance: Chance) -> str:
    """Return an American social security number of a valid form, without a leading zero."""
    area = chance.between(100, 898)
    area += area >= 666
    return f"{area:03}{chance.between(1, 99):02}{chance.between(1, 9999):04}"


def identity(value: str, chance: Chance) -> str:
    """Return an identity number of the same form; its check digits are valid if the value's are."""
    identities = (item for item in IDENTITIES if item.form.fullmatch(value) and item.holds(value))
    kind = next(identities, None)
    if kind is None:
        return _similar(value, chance)
    for _ in range(TRIES):
        drawn = _similar(value, chance)
        drawn = value[0] + drawn[1:] if value[0] in "12XYZ" else drawn
        start = chance.below(len(kind.ends))
        for end in [*kind.ends[start:], *kind.ends[:start]]:
            candidate = drawn[: -len(end)] + end
            if kind.form.fullmatch(candidate) and kind.holds(candidate):
                return candidate
    return _similar(value, chance)


def ip(value: str, chance: Chance) -> str:
    """Return an address of the same length in the same type of network; IPv6 is exploded."""
    if ":" in value:
        first, *rest = value.split(":")
        return ":".join([first, *(_hextet(group, chance) for group in rest)])
    octets = value.split(".")
    address = ipaddress.IPv4Address(value)
    kept = next((n for network, n in PRIVATE.items() if address in network), 0)
    drawn = [_octet(group, chance) for group in octets]
    if kept == 0:
        while int(drawn[0]) in (0, 10, 127, 169, 172, 192) or int(drawn[0]) >= 224:
            drawn[0] = _octet(octets[0], chance)
    return ".".join(octets[:kept] + drawn[kept:])


PRIVATE = {
    ipaddress.IPv4Network("10.0.0.0/8"): 1,
    ipaddress.IPv4Network("172.16.0.0/12"): 2,
    ipaddress.IPv4Network("192.168.0.0/16"): 2,
    ipaddress.IPv4Network("169.254.0.0/16"): 2,
}
"""The octets of private networks that stay."""


def _octet(octet: str, chance: Chance) -> str:
    least, most = {1: (1, 9), 2: (10, 99), 3: (100, 254)}[len(octet)]
    return str(chance.between(least, most))


def _hextet(hextet: str, chance: Chance) -> str:
    bare = hextet.lstrip("0")
    if not bare:
        return hextet
    digits = "0123456789abcdef"
    drawn = chance.choice(digits[1:]) + "".join(chance.choice(digits) for _ in bare[1:])
    return drawn.rjust(len(hextet), "0")


def password(value: str, chance: Chance) -> str:
    """Return a password with each character replaced by a similar one."""
    return "".join(
        chance.like(character)
        if character.isalnum()
        else chance.choice(SYMBOLS)
        if character.isascii()
        else character
        for character in value
    )


def secret(value: str, chance: Chance) -> str:
    """Return a secret with the same prefix, separators, alphabet and text around a key."""
    drawn, done = "", 0
    for kept in KEPT_OF_SECRETS.finditer(value):
        drawn += "".join(map(chance.like, value[done : kept.start()])) + kept.group()
        done = kept.end()
    return drawn + "".join(map(chance.like, value[done:]))


def address(value: str, language: str | None, key: bytes, attempt: str) -> str:
    """Return an address drawn token by token: a street's name has one surrogate everywhere."""
    house = Chance(key, "house", value, attempt)
    return " ".join(
        _address_token(token, language, house, Chance(key, "street", token, attempt))
        for token in value.split(" ")
    )


def _address_token(token: str, language: str | None, house: Chance, street: Chance) -> str:
    if token.strip("#").lower() in KEPT_WORDS or not token.strip("#"):
        return token
    if ordinal := ORDINAL.fullmatch(token):
        number = int(_similar(ordinal[1], house))
        endings = {1: "st", 2: "nd", 3: "rd"}
        is_teen = number % 100 in (11, 12, 13)
        return f"{number}{'th' if is_teen else endings.get(number % 10, 'th')}"
    if any(character.isdigit() for character in token):
        return re.sub("[0-9]+", lambda match: _similar(match.group(), house), token)
    if compound := GERMAN_STREET.fullmatch(token):
        return surrogate_names.draw(compound[1], "de", street) + compound[2]
    return surrogate_names.draw(token, language, street) if LETTERS.search(token) else token


def email(
    value: str, language: str | None, key: bytes, attempt: str, names: Mapping[str, str]
) -> str:
    """Return an address that uses the names' surrogates, and one surrogate per domain.

    ``value`` is in lower case; ``attempt`` is the draw's number, empty for the first; ``names`` are
    the surrogates of the conversation's names.
    """
    local, _, domain = value.rpartition("@")
    chance = Chance(key, "mailbox", value, attempt)
    long = sorted((name for name in names if len(name) > 2), key=lambda name: (-len(name), name))
    names_within = re.compile("|".join(map(re.escape, long)) or "(?!)")

    def draw(letters: str) -> str:
        if len(letters) == 1:
            initials = (drawn[0] for name, drawn in sorted(names.items()) if name[0] == letters)
            return next(initials, None) or Chance(key, "initial", letters, attempt).like(letters)
        if not letters:
            return ""
        return surrogate_names.draw(letters, language, Chance(key, "mailbox", letters, attempt))

    def replace(part: str) -> str:
        if part.isdigit():
            return _similar(part, chance)
        if not LETTERS.fullmatch(part) or part in MAILBOXES:
            return part
        if part in names:
            return names[part]
        drawn, done = "", 0
        for match in names_within.finditer(part):
            drawn += draw(part[done : match.start()]) + names[match.group()]
            done = match.end()
        return drawn + draw(part[done:])

    drawn = "".join(map(replace, re.split(r"([^\W\d_]+|[0-9]+)", local)))
    if attempt and not any(character.isdigit() for character in drawn):
        drawn += str(chance.between(10, 99))
    return f"{drawn}@{_domain(domain, key)}"


def _domain(domain: str, key: bytes) -> str:
    if domain in PROVIDERS:
        return domain
    labels = domain.split(".")
    kept = 2 if len(labels) > 2 and labels[-2] in SECOND_LEVELS else 1
    drawn = [surrogate_names.make_up(Chance(key, "domain", label)) for label in labels[:-kept]]
    return ".".join([*drawn, *labels[-kept:]])


def _similar(value: str, chance: Chance) -> str:
    """Replace digits by digits and letters by letters; a leading zero stays, and none is added."""
    drawn = [chance.like(character) for character in value]
    if value[:1].isdigit():
        drawn[0] = "0" if value[0] == "0" else chance.choice(DIGITS[1:])
    return "".join(drawn)


def write(kind: Kind, value: str, surrogate: str, written: str) -> str:
    """Return the surrogate of a canonical value as its occurrence is ``written``."""
    readable = plain(written)
    shown = _write(kind, value, surrogate, readable)
    if readable == written or len(shown) != len(written):
        return shown
    return "".join(map(_in_script, shown, readable, written))


def _in_script(character: str, readable: str, written: str) -> str:
    """Return a character of a surrogate as a no-break space or a digit of another script."""
    if character == readable:
        return written
    if character.isdecimal() and written.isdecimal():
        return chr(ord(written) - int(readable) + int(character))
    return character


def _write(kind: Kind, value: str, surrogate: str, written: str) -> str:
    match kind:
        case Kind.PHONE:
            return _phone_like(value, surrogate, written)
        case Kind.CARD | Kind.SSN | Kind.IBAN | Kind.NATIONAL_ID:
            return _fill(surrogate, written)
        case Kind.IP if ":" in written:
            return _ipv6_like(surrogate, written)
        case Kind.IP:
            return surrogate
        case Kind.ADDRESS:
            return _address_like(value, surrogate, written)
        case Kind.PASSWORD | Kind.SECRET:
            return surrogate if written == value else _cased(surrogate, written)
        case Kind.EMAIL:
            shown = _cased_by_run(surrogate, written)
            return shown.replace("@", "%40") if "%40" in written else shown
        case Kind.NAME:
            return _cased_by_run(surrogate, written)


def _phone_like(value: str, surrogate: str, written: str) -> str:
    """Fill the digits from the right; a leading American 1 stays, extensions get other digits."""
    if len(digits_of(written)) - len(value) in (0, 1):
        return _fill(surrogate, written)
    head = re.split("[a-zA-Z]", written, maxsplit=1)[0]
    spare = iter(surrogate[::-1] * 3)
    tail = re.sub("[0-9]", lambda _: next(spare), written[len(head) :])
    return _fill(surrogate, head) + tail


def _fill(surrogate: str, written: str) -> str:
    left, filled = [*surrogate], ""
    for place in reversed(written):
        if place.isalnum() and left:
            character = left.pop()
            filled = (character.lower() if place.islower() else character) + filled
        else:
            filled = place + filled
    return filled


def _ipv6_like(surrogate: str, written: str) -> str:
    groups = surrogate.split(":")
    front, gap, back = written.partition("::")
    heads, tails = (part.split(":") if part else [] for part in (front, back))
    shown = [
        ":".join(
            _cased(group[-len(like) :], like) if like else ""
            for like, group in zip(written_groups, drawn, strict=False)
        )
        for written_groups, drawn in ((heads, groups), (tails, groups[len(groups) - len(tails) :]))
    ]
    return gap.join(shown) if gap else shown[0]


def _address_like(value: str, surrogate: str, written: str) -> str:
    pairs = iter(zip(value.split(" "), surrogate.split(" "), strict=True))

    def put(match: re.Match[str]) -> str:
        before, after = next(pairs)
        return match.group() if before == after else _cased_by_run(after, match.group())

    return re.sub(r"[^\s.,]+", put, written)


def _cased_by_run(surrogate: str, written: str) -> str:
    """Apply the words' capitalisation in ``written`` to the surrogate's words."""
    if written.islower():
        return surrogate
    runs = iter(LETTERS.findall(written))

    def put(match: re.Match[str]) -> str:
        like, word = next(runs, ""), match.group()
        if like.isupper() and len(like) > 1:
            return word.upper()
        return word.capitalize() if like[:1].isupper() else word

    return LETTERS.sub(put, surrogate)


def _cased(surrogate: str, written: str) -> str:
    pairs = zip(surrogate, written, strict=True)
    return "".join(
        character.upper() if like.isupper() else character.lower() for character, like in pairs
    )
