"""Persons' names that a conversation reveals, and words that are no names."""

import re
from collections.abc import Collection, Iterator

_NOT_NAMES = """
a about account actually admin afraid african after again all alone already also always am
american an and any anybody anymore anything april are aren't as asap asian asking at august
australian available back be because been before being besides bob's booked booking both british
business but by called calling can can't canadian cannot card certain changing checking chinese
christian client confused crazy credit currently customer db debit december default demo did
different do does doing don't done down eager economy either else english european even ever
every excited february fine first flying for french friday from full german getting gift glad
going gold good guest had happy has have having he hello help her here hi him his hoping how
however i i'd i'll i'm i've if in indian interested into is isn't it it's italian item its
january japanese jewish july june just kind last late later like listed logged looking lost mad
made main make many march may maybe me member mexican mine monday more most mr mrs ms muslim my
name named names need needing never new no none nope not nothing november now october of off ok
okay old on one only or order other our out over pass passenger password perhaps platinum please
pretty private probably product quite ready really regular right root running same saturday
secure see september server she should shown silver since sir so some somebody someone something
sorry spanish spelled spelt still stop such sunday sure test than thank thanks that that's the
their them then there these they this those thursday to today tomorrow tonight too traveling
travelling trying tuesday unable undefined under unknown until up upset us user vegan vegetarian
very wanna want wanted wanting was wasn't we wednesday well were what what's whatever when where
which while who whose why will wish with wondering worried would writing yes yet you your yours
"""
NOT_NAMES = frozenset(_NOT_NAMES.split())
"""Words that follow "my name is" or "I'm" without being one."""

_MAY_BE_WORDS = """
al an art bell best bill bin bob's brown bush chance chase christian de dean den der do drew el
faith field fields frank gene grace grant guy hall hope hunter in iris jack joy king la lane le
lee long love mark mason may miles mills no olive page park parks penny pepper pierce price ray
rich rob rose ross royal ruby rusty sky so stone summer sunny to trip van violet von wade ward
waters west will winter wood woods young
"""
MAY_BE_WORDS = frozenset(_MAY_BE_WORDS.split())
"""Names that are words, too: alone they count only where nothing speaks against it."""

_ABOUT_A_PERSON = """
birthdate birthday dateofbirth dob email emailaddress firstname gender lastname mobile passport
passportnumber phone phonenumber ssn surname
"""
ABOUT_A_PERSON = frozenset(_ABOUT_A_PERSON.split())
"""Fields beside which a ``name`` is a person's, as ``fields.normal`` writes them."""

_PEOPLE = """
attendee attendees beneficiary cardholder contact contacts customer driver employee guest guests
participant participants passenger passengers patient patients people person recipient
recipients savedpassengers student students tenant traveler travelers
"""
PEOPLE = frozenset(_PEOPLE.split())
"""Fields that hold persons."""

_NOT_VALUES = """
bool boolean changeme empty example false here hidden incorrect integer invalid missing nil none
null number object optional passwd password redacted required secret str string text true
undefined unknown value wrong your_password yourpassword
"""
NOT_VALUES = frozenset(_NOT_VALUES.split())
"""What stands behind ``password:`` in schemas and prose."""


PART = re.compile(r"[^\W\d_]{2,}")
WORD = r"[^\W\d_]+(?:['\u2019-][^\W\d_]+)*"
PROPER = r"[^\W\d_a-zß-öø-ÿ][^\W\d_]*(?:['\u2019-][^\W\d_]+)*"

TITLE_CASE = r"[^\W\d_a-zß-öø-ÿ](?:['\u2019][^\W\d_])?[^\W\d_A-Z]+(?:['\u2019-][^\W\d_]+)*"
WHOSE = r"(?:full|first|last|given|family|passenger|guest|customer|contact|cardholder)"
IS = r"(?:['\u2019]s| is| was|:| are)"
PERSONS = "passenger|person|man|woman|guy|girl|boy|friend|customer|patient|guest|client|somebody"
RELATIVES = (
    "wife|husband|partner|son|daughter|mother|father|mom|mum|dad|brother|sister|friend|colleague"
    "|boss|assistant|fiancée?|girlfriend|boyfriend|child|baby|nephew|niece|uncle|aunt"
)
PARTINGS = "regards|wishes|thanks|sincerely|cheers|yours truly"
TITLES = "Mr|Mrs|Ms|Miss|Mx|Dr|Prof|Professor|Herr|Frau|Señor|Señora"

MINE = re.compile(
    rf"(?i)\b(?:my (?:{WHOSE} )?(?:sur)?names?{IS}|call me|i go by)\s+"
    rf"(?P<name>{WORD}(?: {WORD}){{0,3}})"
)
BOOKED = "is|its|it's|listed|booked|reserved?|reservation|booking|table|made|account"
SAID = re.compile(
    rf"(?i:\b(?:the|his|her|their) (?:{WHOSE} )?(?:sur)?names?{IS}|\b{WHOSE} name{IS}"
    rf"|(?:^|[.,;!?\n(-] ?)(?:the )?name{IS}|\bunder (?:the )?name(?: of)?|\bin the name of"
    rf"|\bknown as|\b(?:{BOOKED}) under)"
    rf"\s*(?P<name>{TITLE_CASE}(?: {WORD}){{0,3}})"
)
INTRODUCED = re.compile(
    r"\b(?:I am|I['\u2019]m|i am|i['\u2019]m|Im|[Tt]his is|[Ii]t['\u2019]s|[Ii]t is)\s+"
    rf"(?P<name>{PROPER}(?: {PROPER}){{1,2}})(?!\w)"
)
FIRST_NAME_ONLY = re.compile(
    rf"\b(?:I am|I['\u2019]m)\s+(?P<name>{PROPER})(?=[,.!\n]|\s*$| and | from | here)"
)
TITLED = re.compile(rf"\b(?:{TITLES})\b\.? (?P<name>{PROPER}(?: {PROPER}){{0,2}})")
SIGNED = re.compile(
    rf"(?i:(?:^|\n)[ \t]*(?:(?:best|kind|warm|many)[ \t]+)?(?:{PARTINGS})[,.!]?[ \t]*\n+[ \t]*)"
    rf"(?P<name>{PROPER}(?: {PROPER}){{0,2}})[ \t]*(?=\n|$)"
)

MENTIONED = re.compile(
    rf"(?i:\b(?:{PERSONS}),? named|\bmy (?:{RELATIVES}),?|\b(?:passenger|guest|customer)s?[:,]?)"
    rf" (?P<name>{TITLE_CASE}(?: {TITLE_CASE}){{0,2}})"
)
ASKED = re.compile(
    r"(?i)\b(?:your|whose|what|passenger's|guest's|full|first|last) (?:\w+ ){0,2}names?\b"
    r"[^?]{0,200}\?"
)
ANSWER = re.compile(rf"(?P<name>{TITLE_CASE}(?: {TITLE_CASE}){{1,2}})[.!]?\s*")
GATE = (
    rf"(?i)names?\b|\buser|\bmy (?:{RELATIVES})\b|passenger|guest|customer|\bi.{{1,3}}m |\bim "
    r"|i am |call me|known as|go by|this is |\bit.{1,3}s |it is "
    rf"|\bunder |\b(?:{TITLES})\b|{PARTINGS}"
)
USER_ID = re.compile(r"([A-Za-z]{2,})[_.]([A-Za-z]{2,})[_.]?[0-9]{2,}")
USED_ID = re.compile(rf"(?i)\buser[^.,?!\n]{{0,30}}?(?<!\w)(?P<id>{USER_ID.pattern})(?!\w)")
JOINED = re.compile(r"[ _.-]|, |['\u2019-]")


MY_RELATIVES = [f"my {one.rstrip('?')}" for one in RELATIVES.split("|")]
TOLD_BY = (
    (MINE, ("name", "call me", "go by")),
    (SAID, ("name", "known as", "under")),
    (INTRODUCED, ("i am", "i'm", "i\u2019m", "im ", "this is", "it's", "it\u2019s", "it is")),
    (FIRST_NAME_ONLY, ("i am", "i'm", "i\u2019m")),
    (MENTIONED, ("named", "passenger", "guest", "customer", *MY_RELATIVES)),
    (SIGNED, tuple(PARTINGS.split("|"))),
)
TITLES_NEEDED = ("mr", "ms ", "ms.", "miss", "mx", "dr", "prof", "herr", "frau", "señor")
"""With what an expression needs in the text, in lower case: to look for it is much cheaper."""


def told(text: str, is_users: bool) -> Iterator[str]:
    """Give the words that a text says to be somebody's name."""
    lowered = text.lower()
    expressions = [
        expression
        for expression, needed in (TOLD_BY if is_users else ())
        if any(one in lowered for one in needed)
    ]
    if is_users and "user" in lowered:
        for match in USED_ID.finditer(text):
            yield from in_user_id(match["id"])
    if any(one in lowered for one in TITLES_NEEDED):
        expressions.append(TITLED)
    for expression in expressions:
        for match in expression.finditer(text):
            yield from _leading(match["name"])


def answered(question: str, text: str) -> Iterator[str]:
    """Give the words of a text that is nothing but a name, said to a question for one."""
    if (match := ANSWER.fullmatch(text)) and ASKED.search(question):
        yield from _leading(match["name"])


def words(text: str) -> Iterator[str]:
    """Give the words of a field that holds a name; initials are none."""
    return (match.group() for match in PART.finditer(text))


def in_user_id(text: str) -> Iterator[str]:
    """Give the parts of a name that a user's id is made of, ``ann_lee_7287``, as capitalized."""
    if match := USER_ID.fullmatch(text):
        yield from (part.title() for part in match.groups() if part.lower() not in NOT_NAMES)


def _leading(name: str) -> Iterator[str]:
    """Give the words up to the first that is no name: ``john calling about`` is ``john``."""
    for n, word in enumerate(name.split(" ")):
        if word.lower() in NOT_NAMES or (n and word.islower() and name[0].isupper()):
            return
        yield from words(word)


def runs(text: str, parts: Collection[str]) -> Iterator[tuple[int, int]]:
    """Give where known parts of names stand in a text, those beside each other as one."""
    begun, end = -1, -1
    for match in PART.finditer(text):
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


def is_name(text: str, start: int, end: int, found: Collection[str]) -> bool:
    """Say if what is spelled like names that were found (as told, in whatever case) is one here.

    Parts beside each other are one, and so is a part with a number, as in a user's id. Alone, a
    part counts as it was told or in capitals; if it is a word, too, then only where it begins no
    sentence, or where the words in front introduce it.
    """
    run = text[start:end]
    if not PART.fullmatch(run) or NUMBERED.match(text, end):
        return True
    if run.isupper() and len(run) <= LONGEST_CODE and run not in found:
        return False
    if run.lower() not in MAY_BE_WORDS:
        return not run.islower() or run in found
    if INTRODUCING.search(text[max(0, start - 24) : start]):
        return True
    begins = BEGINNING.search(text[max(0, start - 4) : start])
    return not run.islower() and (not begins or text[end : end + 1] in ",.!?\n")


NUMBERED = re.compile("_?[0-9]")
LONGEST_CODE = 3
"""So many capitals are rather an airport than a name: MIA is not Mia."""
INTRODUCING = re.compile(
    r"(?i)(?:name(?:'s|\u2019s| is|:)?|call me|known as|i['\u2019]m|i am|this is|under)\s*$"
)
BEGINNING = re.compile(r"(?:^|[.!?:\n]\s*[\"'*-]?\s*)$")
