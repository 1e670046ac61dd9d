import json

from hypothesis import example, given
from hypothesis import strategies as st

from components.curate.redaction import patterns
from components.curate.redaction.detector import Prefilter
from components.curate.redaction.redactor import PATTERNS, Conversation, Redactor
from components.curate.settings import Redaction
from components.schema import Json
from tests.support import logs
from tests.support.cases import cases
from tests.support.talk import stand_in

PLANTED = (
    "ann.lee@acme.com",
    "Bob@Mail.acme.org",
    "+49 30 9018201",
    "(212) 555-0134",
    "4111 1111 1111 1111",
    "5500005555555559",
    "DE89 3704 0044 0532 0130 00",
    "078-05-1120",
    "529.982.247-25",
    "203.0.113.77",
    "825 Laurel Lane",
    "AKIA" + "IOSFODNN7QZXCVBN",
    "ghp_" + "16C7e42F292c6912E7710c838347Ae178B4a",
    "postgres://ann:s3cret@db.acme.com/x",
)
FILLER = (
    "ok",
    "order 4821773901",
    "on 2024-05-15",
    "\n",
    "naïve café",
    "“quoted”",
    "{",
    "[1]",
    'ok {"first_name": "Ann", "phone": "2125550134"}',
    "I'm Sorry",
    "my name is Mia Li",
    "Mr. Moore",
    "my friend Card, Email",
    "I'm Name One",
    "password=EMAIL_1",
    "password=hunter2",
    "<EMAIL_1>",
    "v1.2.3.4",
    "\ud800",
)

words = st.sampled_from((*PLANTED, *FILLER))
texts = st.lists(words, max_size=6).map(" ".join)
values = st.recursive(
    texts
    | st.integers()
    | st.none()
    | st.booleans()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["first_name", "phone", "note", "a", "name", "email"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=6,
)
calls = st.dictionaries(st.sampled_from(["to", "phone", "who"]), values, max_size=3).map(
    lambda arguments: logs.call("book", json.dumps(arguments))
)
messages = st.one_of(
    texts.map(lambda text: {"role": "user", "content": text}),
    texts.map(lambda text: {"role": "system", "content": text}),
    values.map(lambda value: {"role": "tool", "tool_call_id": "c", "content": json.dumps(value)}),
    texts.map(logs.say),
    calls,
)
conversations = st.builds(
    Conversation,
    messages=st.lists(messages, min_size=1, max_size=4),
    answers=st.lists(messages, max_size=2),
    acceptable=values.map(lambda value: [{"name": "book", "arguments": {"to": [value]}}]),
)
PREFILTER = Prefilter(PATTERNS)
REDACTOR = Redactor(Redaction())


def shape(value: Json) -> Json:
    """Return a conversation's structure without texts and numbers, parsing JSON within texts."""
    match value:
        case dict():
            return {key: shape(item) for key, item in value.items()}
        case list():
            return [shape(item) for item in value]
        case str() if value[:1] in ("{", "["):
            try:
                return shape(json.loads(value))
            except ValueError:
                return "text"
        case str() | int() | float():
            return "text"
        case _:
            return value


def plain(conversation: Conversation) -> Json:
    return [*conversation.messages, *conversation.answers, conversation.acceptable]


@given(conversations)
@cases(300)
def test_planted_values_are_removed_and_the_rest_keeps_its_shape(conversation: Conversation):
    redacted = REDACTOR.redact(conversation).conversation
    assert shape(plain(redacted)) == shape(plain(conversation))
    left = json.dumps(plain(redacted), ensure_ascii=False)
    assert [value for value in PLANTED if value in left] == []


@given(conversations)
@cases(300)
def test_redacting_twice_changes_nothing(conversation: Conversation):
    redacted = REDACTOR.redact(conversation).conversation
    assert REDACTOR.redact(redacted).conversation == redacted


CONTEXT = (
    *("phone", "tel", "Call me İn", "我的电话是", "appelez-moi au", "zadzwoń pod", "my ssn is"),
    *(
        "social security",
        "passport",
        "tax id",
        "sin",
        "cpf:",
        "nhs",
        "order",
        "\u212a",
        "\u017f",
        "x",
    ),
    *(" ", " ", "\n", ": ", "-", "(", ".", "\u00a0", "<EMAIL_1>", "1", "0", "DE", "no89"),
    *("415 555 2671", "219099999", "078 05 1120", "943 476 5919", "44051401359", "X1234567"),
)


@given(st.lists(st.sampled_from((*PLANTED, *CONTEXT)), max_size=8).map("".join))
@cases(500)
@example("phone: 0\n49 170 123456")
@example("电话是1\n800138000")
def test_no_value_is_hidden_by_the_prefilter(text: str):
    readable = patterns.plain(text)
    matching = [
        pattern
        for pattern in PATTERNS
        if any(pattern.check(match) for match in pattern.expression.finditer(readable))
    ]
    assert {*matching} <= {*PREFILTER.of(text).patterns}


def kinds_of(value: Json) -> Json:
    """Return the types of all values of a conversation, parsing JSON within texts."""
    match value:
        case dict():
            return {key: kinds_of(item) for key, item in value.items()}
        case list():
            return [kinds_of(item) for item in value]
        case str() if value[:1] in ("{", "["):
            try:
                return kinds_of(json.loads(value))
            except ValueError:
                return "str"
        case _:
            return type(value).__name__


IBAN = "DE89 3704 0044 0532 0130 00"
AFTER_A_NAME = Conversation(
    messages=[{"role": "user", "content": f"my name is Mia Li {IBAN}"}],
    acceptable=[{"name": "book", "arguments": {"to": [f"{IBAN} {IBAN}"]}}],
)


@given(conversations)
@example(AFTER_A_NAME)
@cases(300)
def test_surrogates_keep_every_type_and_are_found_where_the_values_were(
    conversation: Conversation,
):
    replaced = stand_in(conversation)
    assert kinds_of(plain(replaced)) == kinds_of(plain(conversation))
    left = json.dumps(plain(replaced), ensure_ascii=False).lower()
    assert [value for value in PLANTED if value.lower() in left] == []
    before, after = REDACTOR.redact(conversation), REDACTOR.redact(replaced)
    assert plain(after.conversation) == plain(before.conversation)
