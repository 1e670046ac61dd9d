"""Persons' names that a conversation reveals, and words that are not names."""

import re
from collections.abc import Collection, Iterator
from functools import cache, lru_cache
from typing import cast

import re2

from components.curate.redaction.patterns import UNSPACED, word_list

IN_ANY_CASE = "señor|señora|monsieur|madame|mademoiselle|signor|signora|senhor|senhora"
TITLES = (
    "Mr|Mrs|Ms|Miss|Mx|Dr|Dra|Prof|Professor|Herr|Frau|Mme|Mlle|Sra"
    f"|{IN_ANY_CASE}|{IN_ANY_CASE.title()}"
)
TITLE_WORDS = frozenset(f"{TITLES}|Sr".lower().split("|"))
NOT_NAMES = TITLE_WORDS | word_list("not_names")  # words after "my name is" or "I'm"
MAY_BE_WORDS = word_list("names_or_words")  # alone they count only in an unambiguous context
NOT_VALUES = word_list("not_values")  # words after ``password:`` in schemas and prose
PEOPLE = word_list("fields_of_people")
ABOUT_A_PERSON = word_list("fields_about_a_person")
"""Fields next to which a ``name`` is a person's, normalised by ``json_texts.normal``."""


PART = re.compile(r"[^\W\d_]{2,}")
UNSPACED_WORD = re.compile(f"[{UNSPACED}]+")
NO_CODE = "(?![A-Za-z]{2}[0-9]{2} ?[A-Za-z0-9]{4})"
"""The country at the start of an IBAN is not a name, even after one: ``Mia Li DE89 3704``."""
WORD = NO_CODE + r"[^\W\d_]+(?:['\u2019-][^\W\d_]+)*"
PROPER = NO_CODE + r"[^\W\d_a-zß-öø-ÿ][^\W\d_]*(?:['\u2019-][^\W\d_]+)*"
TITLE_CASE = (
    NO_CODE + r"[^\W\d_a-zß-öø-ÿ](?:['\u2019][^\W\d_])?[^\W\d_A-Z]+(?:['\u2019-][^\W\d_]+)*"
)
WHOSE = r"(?:full|first|last|given|family|passenger|guest|customer|contact|cardholder)"
IS = r"(?:['\u2019]s| is| was|:| are)"
PERSONS = "passenger|person|man|woman|guy|girl|boy|friend|customer|patient|guest|client|somebody"
RELATIVES = (
    "wife|husband|partner|son|daughter|mother|father|mom|mum|dad|brother|sister|friend|colleague"
    "|boss|assistant|fiancée?|girlfriend|boyfriend|child|baby|nephew|niece|uncle|aunt"
)
FORMAL_PARTINGS = (
    "regards|wishes|sincerely|yours truly|mit freundlichen grüßen|mfg"
    "|(?:viele|liebe|beste|schöne|freundliche) grüße|(?:bien )?cordialement|bien à vous"
    "|atentamente|(?:un )?saludos?|(?:cordiali |distinti )?saluti|atenciosamente|abraços?"
    "|met vriendelijke groet(?:en)?|med vänlig hälsning|med venn?lig hilsen|mvh"
    "|pozdrawiam|\u0441 уважением"
)
PARTINGS = f"{FORMAL_PARTINGS}|thanks|cheers|thank you|best|yours"

MY_NAME_IS = (
    "ich hei(?:ß|ss)e|mein name ist|je m['\u2019]appelle|mon nom est|me llamo|mi nombre es"
    "|mi chiamo|il mio nome è|meu nome é|me chamo|ik heet|mijn naam is|jag heter|jeg heter"
    "|jeg hedder|nazywam się|mam na imię|меня зовут|мене звати|με λένε|benim ad\u0131m"
)
NOBILIARY = ("da", "de", "del", "den", "der", "di", "dos", "du", "van", "von", "zu")
"""Parts between a first and a family name, which are not replaced."""

TITLE = rf"(?:(?:{TITLES})\b\.?|Dott\.(?:ssa)?|Sig\.(?:ra)?)"
BEFORE_NAME = rf"(?:(?:(?i:{TITLE}|Sr\.?|med\.)|(?-i:[^\W\d_a-zß-öø-ÿ])\.) ){{0,3}}+"
"""Titles and initials between an introduction and a name: ``Herr Dr. med. J. Müller``."""

LEADING = re.compile(rf"\A{BEFORE_NAME}")

ELSEWHERE = re.compile(
    rf"(?i:(?<!\w)(?:{MY_NAME_IS}))\s+(?!(?:Sie|Dich|Euch)(?!\w)){BEFORE_NAME}"
    rf"(?P<name>{TITLE_CASE}(?: (?:(?:{'|'.join(NOBILIARY)})(?= )|{TITLE_CASE})){{0,4}})"
)
"""Introductions in languages other than English."""

ELSEWHERE_MARKERS = (
    *("ich hei", "mein name", "naam", "nome", "mon nom", "nombre", "appelle", "llamo", "chiamo"),
    *("chamo", "heet", "heter", "hedder", "nazywam", "imię", "зовут", "звати", "λένε", "benim"),
)
PARTING_MARKERS = (
    *("regards", "wishes", "thank", "sincerely", "cheers", "yours", "best", "grüße", "cordial"),
    *("à vous", "tamente", "saludo", "saluti", "atenciosa", "groet", "hälsning", "уважением"),
    *("mfg", "abraço", "hilsen", "mvh", "pozdrawiam"),
)

WITHOUT_SPACES = re.compile(
    "(?:我叫|我的名字[是叫]|姓名[:是])(?P<chinese>[\u4e00-\u9fff]{2,4})(?![\u4e00-\u9fff])"
    "|名前は(?P<japanese>[\u3005\u3040-\u30ff\u4e00-\u9fff]{2,8}?)(?:です|と申します|といいます)"
    "|(?<![\u3005\u30a0-\u30ff\u4e00-\u9fff])"
    "(?P<polite>(?:(?!会社)[\u3005\u30a0-\u30ff\u4e00-\u9fff]){2,8}"
    "(?: [\u3005\u30a0-\u30ff\u4e00-\u9fff]{1,6})?)と申します"
    "|이름은 ?(?P<korean>[\uac00-\ud7af]{2,4}?)(?:입니다|이에요|예요|이라고)"
)

MINE = re.compile(
    rf"(?i)\b(?:my (?:{WHOSE} )?(?:sur)?names?{IS}|call me|i go by)\s+"
    rf"{BEFORE_NAME}(?P<name>{WORD}(?: {WORD}){{0,3}})"
)
IS_MINE = re.compile(
    rf"(?<![\w'\u2019-])(?P<name>{TITLE_CASE}(?: {TITLE_CASE}){{1,2}})"
    rf"(?:,? that)? is my (?:{WHOSE} )?(?:sur)?name\b"
)
BOOKED = "is|its|it's|listed|booked|reserved?|reservation|booking|table|made|account"
CALLED = re.compile(
    rf"(?i:\b(?:the|his|her|their) (?:{WHOSE} )?(?:sur)?names?{IS}|\b{WHOSE} name{IS}"
    rf"|(?:^|[.,;!?\n(-] ?)(?:the )?name{IS}|\bunder (?:(?:the|my) )?name(?: of|,)?"
    rf"|\bin the name of|\bknown as|\b(?:{BOOKED}) under"
    rf"|\b(?:reserv|book)[^.?!\n]{{1,48}} under(?= \w+ (?-i:[A-Z])))"
    rf"\s*[\"\u201c]?{BEFORE_NAME}(?P<name>{TITLE_CASE}(?: {WORD}){{0,3}})"
)
INTRODUCED = re.compile(
    r"\b(?:I am|I['\u2019]m|i am|i['\u2019]m|Im|[Tt]his is|[Ii]t['\u2019]s|[Ii]t is)\s+"
    rf"(?P<name>{PROPER}(?: {PROPER}){{1,2}})(?!\w)"
)
FIRST_NAME_ONLY = re.compile(
    rf"\b(?:I am|I['\u2019]m)\s+(?P<name>{PROPER})(?=[,.!\n]|\s*$| and | from | here)"
)
TITLED = re.compile(rf"\b{TITLE} {BEFORE_NAME}(?P<name>{PROPER}(?: {PROPER}){{0,2}})")
SIGNED = re.compile(
    rf"(?i:(?:^|\n)[ \t]*(?:(?:best|kind|warm|many)[ \t]+)?(?:{PARTINGS})[,.!]?[ \t]*\n+[ \t]*)"
    rf"{BEFORE_NAME}(?P<name>{PROPER}(?: {PROPER}){{0,2}})[ \t]*(?=\n|$)"
)
SIGNED_IN_LINE = re.compile(
    rf"(?i:(?<!\w)(?:{FORMAL_PARTINGS})(?:,|(?= {BEFORE_NAME}\w+ \w)) )(?![\u0430-\u045f])"
    rf"{BEFORE_NAME}(?P<name>{PROPER}(?: {PROPER}){{0,2}})\.?[ \t]*(?=\n|$)"
)
"""Without a comma only two names are a signature: ``Viele Grüße Berlin``."""

MENTIONED = re.compile(
    rf"(?i:\b(?:{PERSONS}),? named|\bmy (?:{RELATIVES}),?|\b(?:passenger|guest|customer)s?[:,]?)"
    rf" (?P<name>{TITLE_CASE}(?: {TITLE_CASE}){{0,2}})"
)
ASKED = re.compile(
    r"(?i)\b(?:your|whose|what|passenger's|guest's|full|first|last) (?:\w+ ){0,2}names?\b"
    r"[^?]{0,200}\?"
)
ANSWER = re.compile(rf"{BEFORE_NAME}(?P<name>{TITLE_CASE}(?: {TITLE_CASE}){{1,2}})[.!]?\s*")
GATE = (
    rf"(?i)names?\b|\buser|\bmy (?:{RELATIVES})\b|passenger|guest|customer|\bi.{{1,3}}m |\bim "
    r"|i am |call me|known as|go by|this is |\bit.{1,3}s |it is "
    rf"|\bunder |\b(?:(?:{TITLES})\b|dott\.|sig\.)|(?:{PARTINGS})[,.!]?[ \t]*\n"
    rf"|(?:{FORMAL_PARTINGS}),? |{MY_NAME_IS}|我叫|名字|姓名|名前|と申します|이름"
)
USER_ID = re.compile(r"([A-Za-z]{2,})[_.]([A-Za-z]{2,})[_.]?[0-9]{2,}")
USED_ID = re.compile(rf"(?i)\buser[^.,?!\n]{{0,30}}?(?<!\w)(?P<id>{USER_ID.pattern})(?!\w)")
JOINED = re.compile(r"[ _.-]|, |['\u2019-]")


MY_RELATIVES = [f"my {relative.rstrip('?')}" for relative in RELATIVES.split("|")]
NAMED_BY = (
    (MINE, ("name", "call me", "go by")),
    (IS_MINE, (" is my ",)),
    (CALLED, ("name", "known as", "under")),
    (INTRODUCED, ("i am", "i'm", "i\u2019m", "im ", "this is", "it's", "it\u2019s", "it is")),
    (FIRST_NAME_ONLY, ("i am", "i'm", "i\u2019m")),
    (MENTIONED, ("named", "passenger", "guest", "customer", *MY_RELATIVES)),
    (SIGNED, PARTING_MARKERS),
    (SIGNED_IN_LINE, PARTING_MARKERS),
    (ELSEWHERE, ELSEWHERE_MARKERS),
)
PROFILE = re.compile(
    rf"(?i:\b{WHOSE}(?:['\u2019]s)? (?:sur)?name{IS})\s*"
    rf"{BEFORE_NAME}(?P<name>{TITLE_CASE}(?: {TITLE_CASE}){{0,3}})"
)
"""In an application's text: ``You serve one customer. Customer name: Sofia Kim``."""

TITLES_NEEDED = (
    *("mr", "ms ", "ms.", "miss", "mx", "dr", "prof", "herr", "frau", "mme ", "mme.", "mlle"),
    *("sra ", "sra.", "dott.", "sig.", *IN_ANY_CASE.split("|")),
)
"""Substrings in lower case that an expression requires: searching for them is much cheaper."""

BY_USERS = (*NAMED_BY, (TITLED, TITLES_NEEDED))
BY_OTHERS = (
    (PROFILE, ("name:", "name is", "name was", "name are", "name'", "name\u2019")),
    (TITLED, TITLES_NEEDED),
)


@cache
def _markers(is_users: bool) -> re2.Set:
    """Return one automaton of the substrings of each expression, in their order."""
    markers = re2.Set.SearchSet()
    for _, needed in BY_USERS if is_users else BY_OTHERS:
        markers.Add("|".join(map(re.escape, needed)))
    markers.Compile()
    return markers


def named_in(text: str, is_users: bool) -> Iterator[str]:
    """Yield the name parts that a text introduces."""
    lowered = text.lower()
    places = _markers(is_users).Match(lowered.encode("utf-8", "replace"))
    if is_users and not text.isascii():
        for match in WITHOUT_SPACES.finditer(text):
            yield from words("".join(filter(None, match.groups())))
    if is_users and "user" in lowered:
        for match in USED_ID.finditer(text):
            yield from in_user_id(match["id"])
    for place in cast("list[int] | None", places) or ():
        for match in (BY_USERS if is_users else BY_OTHERS)[place][0].finditer(text):
            yield from _leading(match["name"])


def named_in_answer(question: str, text: str) -> Iterator[str]:
    """Yield the name parts of a text that is only a name, if ``question`` asked for one."""
    if (match := ANSWER.fullmatch(text)) and ASKED.search(question):
        yield from _leading(match["name"])


def words(text: str) -> Iterator[str]:
    """Return the words of a name field, without titles and initials."""
    return (match.group() for match in PART.finditer(LEADING.sub("", text)))


def in_user_id(text: str) -> Iterator[str]:
    """Yield the capitalised name parts of a user id such as ``ann_lee_7287``."""
    if match := USER_ID.fullmatch(text):
        yield from (part.title() for part in match.groups() if part.lower() not in NOT_NAMES)


def _leading(name: str) -> Iterator[str]:
    """Yield the words before the first non-name: ``john calling about`` yields ``john``."""
    for n, word in enumerate(name.split(" ")):
        if n and word in NOBILIARY:
            continue
        if word.lower() in NOT_NAMES or (n and word.islower() and name[0].isupper()):
            return
        yield from words(word)


def runs(text: str, parts: frozenset[str]) -> Iterator[tuple[int, int]]:
    """Yield the spans of known name parts in a text, adjacent ones as one."""
    begun, end = -1, -1
    for match in _words(parts).finditer(text):
        if match.group().lower() not in parts:
            continue
        if begun >= 0 and JOINED.fullmatch(text, end, match.start()):
            end = match.end()
            continue
        if begun >= 0:
            yield begun, end
        begun, end = match.span()
    if begun >= 0:
        yield begun, end


@lru_cache(maxsize=64)
def _words(parts: frozenset[str]) -> re.Pattern[str]:
    """Return an expression of words: a name is one also among others in a script without spaces."""
    within = sorted((part for part in parts if UNSPACED_WORD.fullmatch(part)), key=len)
    if not within:
        return PART
    names = "|".join(reversed(within))
    return re.compile(rf"{names}|(?:(?!{names})[^\W\d_]){{2,}}")


def is_name(text: str, start: int, end: int, names: Collection[str]) -> bool:
    """Return whether a span spelled like a known name is a name here.

    Adjacent parts are a name, and so is a part with a number, as in a user id. A single part counts
    in its known spelling or capitalised; if it is also a word, then only inside of a sentence, or
    after words that introduce a name.
    """
    run = text[start:end]
    if not PART.fullmatch(run) or NUMBERED.match(text, end):
        return True
    if run.isupper() and len(run) <= LONGEST_CODE and run not in names:
        return False
    if run.lower() not in MAY_BE_WORDS:
        return not run.islower() or run in names
    if INTRODUCING.search(text[max(0, start - 24) : start]):
        return True
    begins = BEGINNING.search(text[max(0, start - 4) : start])
    return not run.islower() and (not begins or text[end : end + 1] in ",.!?\n")


NUMBERED = re.compile("_?[0-9]")
LONGEST_CODE = 3  # up to this many capitals are probably an airport code: MIA is not Mia
INTRODUCING = re.compile(
    r"(?i)(?:name(?:'s|\u2019s| is|:)?|call me|known as|i['\u2019]m|i am|this is|under)\s*$"
)
BEGINNING = re.compile(r"(?:^|[.!?:\n]\s*[\"'*-]?\s*)$")
