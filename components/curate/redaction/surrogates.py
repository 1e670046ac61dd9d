"""Draw surrogates: made-up values of the form of real ones, and write them as those are written.

A surrogate keeps the kind, the length, the separators and the case of its value, and what the form
says: a card's brand, an account's country, a phone's country code, a network's being private, a
key's prefix, a mailbox's being at a public provider. All else is drawn.
"""

import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from components.curate.redaction import contact, identity_numbers, secret_values, surrogate_names
from components.curate.redaction.patterns import Kind, digits_of
from components.curate.redaction.surrogate_names import DIGITS, LOWER, Chance

TRIES = 1000
"""How often an identity number is drawn until it has a form that there is, such as a month's."""

_PROVIDERS = """
aol.com fastmail.com free.fr gmail.com gmx.de gmx.net googlemail.com hotmail.com icloud.com
libero.it live.com mail.com mail.ru me.com msn.com orange.fr outlook.com proton.me protonmail.com
qq.com t-online.de web.de yahoo.co.uk yahoo.com yandex.ru 163.com
"""
PROVIDERS = frozenset(_PROVIDERS.split())
"""Where so many people have a mailbox that it says nothing of one."""

_MAILBOXES = """
admin billing contact hello help hi info jobs mail me news newsletter noreply office orders press
privacy reply sales security service shop staff support team the webmaster
"""
MAILBOXES = frozenset(_MAILBOXES.split())
"""Words of mailboxes that are nobody's name."""

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
"""What says what sort of a secret it is, and what an escape is made of."""

KEPT_WORDS = frozenset(
    one.lower()
    for one in re.split(
        r"\|",
        f"{contact.SUFFIXES}|{contact.ROMANCE}|{contact.FRENCH}|N|S|E|W|NE|NW|SE|SW|North|South"
        "|East|West|Apt|Apartment|Suite|Ste|Unit|Floor|Fl|No|#|P|O|PO|Box|bis|de|du|des|la|le|les|d|l"
        "|straße|strasse|platz|allee|weg",
    )
)
"""Words of an address that are no name."""

GERMAN_STREET = re.compile("(.+?)(straße|strasse|str|gasse|weg|platz|allee|damm|ufer)")

PAIRS = tuple(f"{n:02}" for n in range(100))


@dataclass(frozen=True, slots=True)
class Identity:
    """What an identity number looks like, its check, and the ends of which one makes that hold."""

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
"""The first whose form and check hold of a value is what it is."""


def canonical(kind: Kind, key: str) -> str:
    """Return the form in which a value is drawn for: passports are found with and without marks."""
    if kind is Kind.NATIONAL_ID:
        return "".join(one for one in key if one.isalnum()).upper()
    return key


def card(value: str, chance: Chance) -> str:
    """Draw a card number of the same brand and length, with its Luhn digit."""
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
    """Draw an account of the same country, with its check digits (ISO 13616)."""
    account = "".join(chance.like(one) for one in value[4:])
    turned = "".join(str(int(one, 36)) for one in f"{account}{value[:2]}00")
    return f"{value[:2]}{98 - int(turned) % 97:02}{account}"


def phone(value: str, chance: Chance, *, is_international: bool) -> str:
    """Draw a number of as many digits, with the same country's or trunk's prefix."""
    code = CALLING_CODE.match(value) if is_international else None
    kept = code.group() if code else ""
    rest = value[len(kept) :]
    is_american = len(rest) == 10 and rest[0] in "23456789" and rest[3] in "23456789"
    digits = [
        chance.choice(DIGITS[2:])
        if is_american and place in (0, 3)
        else one
        if one == "0" and place == 0
        else chance.choice(DIGITS[1:])
        if place < 2 and one != "0"
        else chance.choice(DIGITS)
        for place, one in enumerate(rest)
    ]
    return kept + "".join(digits)


def ssn(chance: Chance) -> str:
    """Draw an American social security number that may have been issued, without a zero first."""
    area = chance.between(100, 898)
    area += area >= 666
    return f"{area:03}{chance.between(1, 99):02}{chance.between(1, 9999):04}"


def identity(value: str, chance: Chance) -> str:
    """Draw an identity number of the same form; its check digits hold if the value's do."""
    sort = next((one for one in IDENTITIES if one.form.fullmatch(value) and one.holds(value)), None)
    for _ in range(TRIES if sort else 0):
        assert sort is not None
        drawn = _similar(value, chance)
        drawn = value[0] + drawn[1:] if value[0] in "12XYZ" else drawn
        bodies = (drawn[: -len(end)] + end for end in _turned(sort.ends, chance))
        whole = next((one for one in bodies if sort.form.fullmatch(one) and sort.holds(one)), None)
        if whole is not None:
            return whole
    return _similar(value, chance)


def _turned(ends: Sequence[str], chance: Chance) -> Sequence[str]:
    start = chance.below(len(ends))
    return [*ends[start:], *ends[:start]]


def ip(value: str, chance: Chance) -> str:
    """Draw an address of the same length in the same sort of network; IPv6 ones are exploded."""
    if ":" in value:
        first, *rest = value.split(":")
        return ":".join([first, *(_hextet(one, chance) for one in rest)])
    octets = value.split(".")
    kept = _private_octets(ipaddress.IPv4Address(value))
    drawn = [_octet(one, chance) for one in octets]
    if kept == 0:
        while int(drawn[0]) in (0, 10, 127, 169, 172, 192) or int(drawn[0]) >= 224:
            drawn[0] = _octet(octets[0], chance)
    return ".".join(octets[:kept] + drawn[kept:])


def _private_octets(address: ipaddress.IPv4Address) -> int:
    private = {"10.0.0.0/8": 1, "172.16.0.0/12": 2, "192.168.0.0/16": 2, "169.254.0.0/16": 2}
    return next((n for one, n in private.items() if address in ipaddress.IPv4Network(one)), 0)


def _octet(octet: str, chance: Chance) -> str:
    least, most = {1: (1, 9), 2: (10, 99), 3: (100, 254)}[len(octet)]
    return str(chance.between(least, most))


def _hextet(hextet: str, chance: Chance) -> str:
    bare = hextet.lstrip("0")
    if not bare:
        return hextet
    drawn = chance.choice("123456789abcdef") + "".join(
        chance.choice("0123456789abcdef") for _ in bare[1:]
    )
    return drawn.rjust(len(hextet), "0")


def password(value: str, chance: Chance) -> str:
    """Draw a password: of each character another of its sort."""
    return "".join(
        chance.like(one) if one.isalnum() else chance.choice(SYMBOLS) if one.isascii() else one
        for one in value
    )


def secret(value: str, chance: Chance) -> str:
    """Draw a secret: prefix, separators and alphabet are kept, so is what stands around a key."""
    drawn, done = "", 0
    for kept in KEPT_OF_SECRETS.finditer(value):
        drawn += "".join(chance.like(one) for one in value[done : kept.start()]) + kept.group()
        done = kept.end()
    return drawn + "".join(chance.like(one) for one in value[done:])


def address(value: str, language: str | None, key: bytes, attempt: str) -> str:
    """Draw an address token by token: a street's name has the same surrogate in each of them."""
    house = Chance(key, "house", value, attempt)
    return " ".join(
        _address_token(one, language, house, Chance(key, "street", one, attempt))
        for one in value.split(" ")
    )


def _address_token(token: str, language: str | None, house: Chance, street: Chance) -> str:
    if token.strip("#").lower() in KEPT_WORDS or not token.strip("#"):
        return token
    if ordinal := ORDINAL.fullmatch(token):
        number = int(_similar(ordinal[1], house))
        endings = {1: "st", 2: "nd", 3: "rd"}
        is_teen = number % 100 in (11, 12, 13)
        return f"{number}{'th' if is_teen else endings.get(number % 10, 'th')}"
    if any(one.isdigit() for one in token):
        return re.sub("[0-9]+", lambda match: _similar(match.group(), house), token)
    if compound := GERMAN_STREET.fullmatch(token):
        return surrogate_names.draw(compound[1], "de", street) + compound[2]
    return surrogate_names.draw(token, language, street) if LETTERS.search(token) else token


def email(
    value: str,
    language: str | None,
    key: bytes,
    attempt: str,
    names: Mapping[str, str],
) -> str:
    """Draw an address: parts that are names become what these do, a domain the same everywhere.

    Args:
        value: The address in lower case.
        language: That of the conversation, ``None`` if it is not known.
        key: The conversation's.
        attempt: Which draw it is; empty at first.
        names: The surrogates of the conversation's names.
    """
    local, _, domain = value.rpartition("@")
    chance = Chance(key, "mailbox", value, attempt)
    drawn = "".join(
        _mailbox_part(one, language, key, attempt, names, chance)
        for one in re.split(r"([^\W\d_]+|[0-9]+)", local)
    )
    if attempt and not any(one.isdigit() for one in drawn):
        drawn += str(chance.between(10, 99))
    return f"{drawn}@{_domain(domain, key)}"


def _mailbox_part(
    part: str,
    language: str | None,
    key: bytes,
    attempt: str,
    names: Mapping[str, str],
    chance: Chance,
) -> str:
    if part.isdigit():
        return _similar(part, chance)
    if not LETTERS.fullmatch(part) or part in MAILBOXES:
        return part
    if part in names:
        return names[part]
    long = sorted((one for one in names if len(one) > 2), key=lambda one: (-len(one), one))
    drawn, done = "", 0
    for match in re.finditer("|".join(map(re.escape, long)), part) if long else ():
        drawn += _rest(part[done : match.start()], language, key, attempt, names)
        drawn += names[match.group()]
        done = match.end()
    return drawn + _rest(part[done:], language, key, attempt, names)


def _rest(
    letters: str, language: str | None, key: bytes, attempt: str, names: Mapping[str, str]
) -> str:
    if len(letters) == 1:
        initial = next((to[0] for name, to in sorted(names.items()) if name[0] == letters), None)
        return initial or Chance(key, "initial", letters, attempt).like(letters)
    if not letters:
        return ""
    return surrogate_names.draw(letters, language, Chance(key, "mailbox", letters, attempt))


def _domain(domain: str, key: bytes) -> str:
    if domain in PROVIDERS:
        return domain
    labels = domain.split(".")
    kept = 2 if len(labels) > 2 and labels[-2] in SECOND_LEVELS else 1
    drawn = [surrogate_names.make_up(Chance(key, "domain", one)) for one in labels[:-kept]]
    return ".".join([*drawn, *labels[-kept:]])


def _similar(value: str, chance: Chance) -> str:
    """Draw digits for digits and letters for letters; only a zero stays one at the front."""
    drawn = [chance.like(one) for one in value]
    if value[:1].isdigit():
        drawn[0] = "0" if value[0] == "0" else chance.choice(DIGITS[1:])
    return "".join(drawn)


def write(kind: Kind, value: str, surrogate: str, written: str) -> str:
    """Write a surrogate in the form in which an occurrence of its value is written.

    Args:
        kind: The value's kind.
        value: The value as ``canonical`` writes it.
        surrogate: What was drawn for it.
        written: The occurrence.
    """
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
    """Fill the digits from the right; an American 1 in front stays, an extension gets others."""
    if len(digits_of(written)) - len(value) in (0, 1):
        return _fill(surrogate, written)
    head = re.split("[a-zA-Z]", written, maxsplit=1)[0]
    spare = iter(surrogate[::-1] * 3)
    tail = re.sub("[0-9]", lambda _: next(spare), written[len(head) :])
    return _fill(surrogate, head) + tail


def _fill(surrogate: str, written: str) -> str:
    """Put characters in the places of letters and digits, from the right; what is left stays."""
    left, filled = [*surrogate], ""
    for one in reversed(written):
        if one.isalnum() and left:
            character = left.pop()
            filled = (character.lower() if one.islower() else character) + filled
        else:
            filled = one + filled
    return filled


def _ipv6_like(surrogate: str, written: str) -> str:
    groups = surrogate.split(":")
    front, gap, back = written.partition("::")
    fronts = front.split(":") if front else []
    backs = back.split(":") if back else []
    pairs = [
        zip(fronts, groups, strict=False),
        zip(backs, groups[len(groups) - len(backs) :], strict=True),
    ]
    shown = [
        ":".join(_cased(group[-len(one) :], one) if one else "" for one, group in pair)
        for pair in pairs
    ]
    return gap.join(shown) if gap else shown[0]


def _address_like(value: str, surrogate: str, written: str) -> str:
    pairs = iter(zip(value.split(" "), surrogate.split(" "), strict=True))

    def put(match: re.Match[str]) -> str:
        before, after = next(pairs)
        return match.group() if before == after else _cased_by_run(after, match.group())

    return re.sub(r"[^\s.,]+", put, written)


def _cased_by_run(surrogate: str, written: str) -> str:
    """Write the words of a surrogate in capitals where those that they stand for are."""
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
    return "".join(one.upper() if like.isupper() else one.lower() for one, like in pairs)
