"""Patterns of e-mail addresses, phone numbers and street addresses."""

import re

from components.curate.redaction.patterns import (
    UNSPACED,
    Kind,
    Value,
    before,
    digits_of,
    pattern,
    value_of,
)

SUFFIXES = (
    "Street|St|Avenue|Ave|Av|Road|Rd|Boulevard|Blvd|Drive|Dr|Lane|Ln|Court|Ct|Place|Pl|Square|Sq"
    "|Terrace|Ter|Way|Parkway|Pkwy|Highway|Hwy|Circle|Cir|Trail|Trl|Close|Crescent|Cres|Mews"
    "|Gardens|Grove|Quay|Alley|Esplanade|Loop|Pike|Turnpike"
)
GERMAN = "straße|strasse|str\\.|gasse|weg|platz|allee|damm|ufer"
ROMANCE = "Rue|Via|Viale|Piazza|Corso|Calle|Avenida|Paseo|Rua|Praça|Avenue|Boulevard"
FRENCH = "rue|avenue|boulevard|place|allée|chemin|impasse|quai"
UNIT = r"(?:,? (?:Apt|Apartment|Suite|Ste|Unit|Floor|Fl|No|#)\.? ?#?[A-Za-z]?[0-9][A-Za-z0-9-]*)?"
LETTERS = 60
"""Maximum characters of a word: words may contain dots, each of which starts another attempt to
match, so an unbounded word would be slow."""

PROPER = rf"[^\W\d_a-z][\w'\u2019.-]{{0,{LETTERS}}}"
STREET_WORD = rf"[^\W\d_][\w'\u2019.-]{{0,{LETTERS}}}"


_SHORT = """
st street ave avenue av avenue rd road blvd boulevard dr drive ln lane ct court pl place sq square
pkwy parkway hwy highway apt apartment ste suite
"""
SHORT: dict[str, str] = dict(
    zip(_SHORT.split()[::2], _SHORT.split()[1::2], strict=True)
)  # by abbreviation


def address(match: re.Match[str]) -> Value | None:
    """Return an address with a key independent of spacing, case and abbreviations."""
    start, end, text = value_of(match)
    return Value(start, end, address_key(text))


def holds_address(text: str) -> bool:
    """Return whether a pattern finds an address in a text; that part is then the value."""
    return any(pattern.expression.search(text) for pattern in ADDRESS_PATTERNS)


def address_key(text: str) -> str:
    """Return the canonical form of an address."""
    return " ".join(SHORT.get(word, word) for word in re.split(r"[\s.,]+", text.lower()) if word)


ADDRESS_PATTERNS = (
    pattern(
        Kind.ADDRESS,
        address,
        r"(?<![\w.-])[0-9]{1,6}[A-Za-z]?(?:-[0-9]+)? "
        r"(?:(?:[NSEW]{1,2}\.?|North|South|East|West) )?"
        rf"(?:(?:{PROPER}|[0-9]+(?:st|nd|rd|th)) ){{1,4}}(?:{SUFFIXES})\b\.?{UNIT}",
        rf"[0-9][0-9A-Za-z-]* [\pL\pN.'\x{{2019}} -]*(?:{SUFFIXES})",
    ),
    pattern(
        Kind.ADDRESS,
        address,
        rf"(?<![\w-])[^\W\d_a-z][\w.-]{{0,{LETTERS}}}(?:{GERMAN}) ?[0-9]{{1,4}}"
        r"[a-z]?(?![\w.])",
        rf"(?:{GERMAN}) ?[0-9]",
    ),
    pattern(
        Kind.ADDRESS,
        address,
        rf"(?<![\w-])(?:{ROMANCE}) (?:{STREET_WORD} ){{0,4}}{STREET_WORD},?"
        r" [0-9]{1,5}(?![\w.:/-])",
        rf"(?:{ROMANCE}) ",
    ),
    pattern(
        Kind.ADDRESS,
        address,
        rf"(?<![\w.-])[0-9]{{1,4}},? (?:bis )?(?:{FRENCH}) "
        rf"(?:(?:de|du|des|la|le|les) |[dl]['\u2019])*{PROPER}(?: {PROPER}){{0,2}}",
        rf"[0-9],? (?:bis )?(?:{FRENCH}) ",
    ),
    pattern(
        Kind.ADDRESS,
        address,
        r"(?i)(?<!\w)p\.? ?o\.? box,? [0-9]{1,6}(?!\w)",
        r"(?i)p\.? ?o\.? box",
    ),
)


CALLING = (
    "phone|phones|telephone|tel|call|calling|mobile|cell|cellphone|whatsapp|sms|fax|dial"
    "|reach me|text me|texted|ring me|contact number|my number|phone_number"
    "|telefon|telefonnummer|handy|handynummer|mobilnummer|rufnummer|teléfono|telefono|telefone"
    "|téléphone|móvil|celular|portable|cellulare|telefoon|телефон"
)
CALLING_UNSPACED = "电话|電話|手机|手機|携帯|전화|휴대폰|โทร"
CALL_ME = (
    r"(?:r?appele|joigne)z[ -]moi au|me (?:rappeler|joindre) au|(?:chiama(?:te)?mi|mi chiami) al"
    r"|ll[aá]m[ae]me al|me ligue no|ligue para|(?:ruf|erreich)\w* (?:sie )?mich unter"
    r"|(?:za)?dzwo\w+ (?:do mnie )?pod|bel me op"
)
PHONE_WORDS = re.compile(
    rf"\b(?:{CALLING})\b[^a-z]{{0,3}}(?:[a-z']+\W+){{0,4}}$"
    rf"|(?:{CALLING_UNSPACED})\W{{0,3}}\w{{0,4}}\W{{0,3}}$"
    rf"|\b(?:{CALL_ME})(?: n[uú]m[eé]r\w*| nummer)?\W{{0,3}}$"
)
DIGITS = r"\(?[0-9](?:[ .()/-]{0,2}[0-9]){6"  # to be closed by the maximum
NUMBERED_WORDS = re.compile(
    r"\b(?:order|booking|reservation|confirmation|reference|ticket|case|invoice|tracking|item"
    r"|product|model|serial|account)(?: (?:number|no\.?|id|is))*\W{0,3}$"
)
"""Words for other numbers: "I'm calling about order 4821773901"."""

EXTENSION = r"(?: ?(?:x|ext\.?) ?[0-9]{1,5})?"
NOT_BEHIND = r"(?<![\w.+$€£/:-])"
"""Digits after these are part of something else: a price, a path, a version, an id."""


NO_MAILBOX = re.compile(r"(?i)git@.+|.+@[1-4]x\.(?:png|jpe?g|gif|webp|avif)")
"""A repository's address, and a picture's file for dense screens."""

WORDS_BEFORE = re.compile(f"[{UNSPACED}]+(?=[A-Za-z0-9])")
WORDS_AFTER = re.compile(f"(?<=[A-Za-z]{{2}})[{UNSPACED}]+$")
"""Words of a script without spaces are not part of an address of ASCII."""


def email(match: re.Match[str]) -> Value | None:
    """Return an address with a key in lower case and ``%40`` as ``@``."""
    start, _, text = value_of(match)
    if NO_MAILBOX.fullmatch(text):
        return None
    lead, tail = WORDS_BEFORE.match(text), WORDS_AFTER.search(text)
    first, last = lead.end() if lead else 0, tail.start() if tail else len(text)
    key = text[first:last].lower().replace("%40", "@")
    return Value(start + first, start + last, key)


def phone(match: re.Match[str]) -> Value | None:
    """Return a number of 7 to 15 digits; the key omits the American prefix 1."""
    start, end, text = value_of(match)
    digits = digits_of(re.split("[a-z]", text, maxsplit=1)[0])
    if not 7 <= len(digits) <= 15 or len(set(digits)) == 1:
        return None
    digits = digits[1:] if len(digits) == 11 and digits[0] == "1" else digits
    return Value(start, end, digits.removeprefix("00"))


def national_phone(match: re.Match[str]) -> Value | None:
    """Return a number with a trunk 0, which has 9 to 11 digits."""
    return phone(match) if 9 <= len(digits_of(match.group())) <= 11 else None


def named_phone(match: re.Match[str]) -> Value | None:
    """Return bare or oddly spaced digits only after a word for calling."""
    context = before(match)
    is_called = PHONE_WORDS.search(context) and not NUMBERED_WORDS.search(context)
    return phone(match) if is_called else None


PATTERNS = (
    pattern(
        Kind.EMAIL,
        email,
        r"[\w%+][\w.%+'-]{0,63}(?:@|%40)(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.)+[^\W\d_]{2,24}",
        r"@|%40",
    ),
    pattern(
        Kind.PHONE,
        phone,
        rf"(?<![\w+.])\+[1-9](?:[ ().-]{{0,2}}[0-9]){{6,14}}{EXTENSION}(?![\w-])",
        r"\+[1-9]",
    ),
    pattern(
        Kind.PHONE,
        phone,
        rf"{NOT_BEHIND}00[1-9][0-9]{{0,2}}[ -](?:[ ().-]{{0,2}}[0-9]){{6,13}}(?![\w/:-])",
        r"00[1-9][0-9]{0,2}[ -]",
    ),
    pattern(
        Kind.PHONE,
        phone,
        # As in Brazil and in Russia.
        rf"{NOT_BEHIND}(?:\([1-9][0-9]\) ?9?[0-9]{{4}}-[0-9]{{4}}"
        r"|8 ?\([0-9]{3,5}\) ?[0-9]{1,3}-[0-9]{2}-[0-9]{2})(?![\w/:-])",
        r"\([1-9][0-9]\) ?[0-9]{4}|8 ?\([0-9]{3}",
    ),
    pattern(
        Kind.PHONE,
        national_phone,
        # As in Germany and in France.
        rf"{NOT_BEHIND}(?:\(?0[1-9][0-9]{{1,4}}\)? ?/ ?[0-9]{{2,8}}(?:[ -][0-9]{{2,5}}){{0,3}}"
        r"|0[1-9](?:\.[0-9]{2}){4})(?![\w/:-]|\.[0-9])",
        r"0[1-9][0-9]{1,4}\)? ?/ ?[0-9]|0[1-9]\.[0-9]{2}\.[0-9]{2}\.",
    ),
    pattern(
        Kind.PHONE,
        phone,
        r"(?<![\w.+$€£/-])(?:\+?1[ .-])?(?:\([2-9][0-9]{2}\)[ .-]?|[2-9][0-9]{2}[.-])"
        rf"[2-9][0-9]{{2}}[ .-][0-9]{{4}}{EXTENSION}(?![\w-])(?!\.[0-9])",
        r"[2-9][0-9]{2}[).][ .-]?[0-9]{3}|[2-9][0-9]{2}-[0-9]{3}[ .-]",
    ),
    pattern(
        Kind.PHONE,
        national_phone,
        rf"{NOT_BEHIND}\(?0[1-9][0-9]{{0,4}}\)?"
        r"(?:(?: [0-9]{2,8}){1,5}|(?:-[0-9]{2,8}){1,4})(?![\w/:-])",
        r"(?:^|[^A-Za-z0-9_.+$€£/:-])\(?0[1-9][0-9]{0,4}\)?[ -][0-9]{2}",
    ),
    pattern(
        Kind.PHONE,
        named_phone,
        rf"(?<![\w.+$€£/-])(?<![0-9]:){DIGITS},13}}{EXTENSION}(?![\w/:-])",
        # The words are lowered: \u0130 becomes an i with a dot. `$` is also before a newline.
        rf"(?i:{CALLING})[^A-Za-z]{{0,3}}(?:[A-Za-z'\x{{130}}\x{{212a}}]+\W+){{0,4}}\n?{DIGITS}}}"
        rf"|(?is:(?:{CALLING_UNSPACED}|{CALL_ME.replace(chr(92) + 'w', '.')}).*){DIGITS}}}",
    ),
)
