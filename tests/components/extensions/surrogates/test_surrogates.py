"""Made-up values replace real ones: of the same form, and equal in a whole conversation."""

import json
import re
import string

import jsonschema_rs
import pytest

from components.curate.redaction import identity_numbers
from components.curate.redaction.redactor import Conversation
from components.curate.settings import Redaction
from components.extensions.surrogates import surrogate_names
from components.schema import Json
from tests.support import logs
from tests.support.talk import arguments, made_up, said, stand_in, text_call, user

KEYS = [bytes([n]) * 32 for n in range(12)]

TOKEN = "ghp_16C7e42F292c6912E7710c838347Ae178B4a"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFU"
PEM = (
    "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA7bq9\nx0Zk8Q==\n-----END RSA PRIVATE KEY-----"
)


@pytest.mark.parametrize(
    ("text", "form"),
    [
        pytest.param("pay 4111 1111 1111 1111", r"pay 4\d{3} \d{4} \d{4} \d{4}", id="card"),
        pytest.param("card 3782-822463-10005", r"card 3[47]\d\d-\d{6}-\d{5}", id="amex"),
        pytest.param("4111\u202f1111\u20111111 1111", r"4\d{3}\u202f\d{4}\u2011\d{4} \d{4}",
                     id="card-typographic"),
        pytest.param("\u0664\u0661\u0661\u0661" + " \u0661\u0661\u0661\u0661" * 3,
                     "\u0664[\u0660-\u0669]{3}(?: [\u0660-\u0669]{4}){3}", id="card-arabic"),
        pytest.param("邮箱是wei@qq.com谢谢", r"邮箱是[a-z]+@qq\.com谢谢", id="email-in-chinese"),
        pytest.param("5500005555555559", r"5[1-5]\d{14}", id="mastercard"),
        pytest.param(
            "DE89 3704 0044 0532 0130 00", r"DE\d\d \d{4} \d{4} \d{4} \d{4} \d\d", id="iban"
        ),
        pytest.param("gb29nwbk60161331926819", r"gb\d\d[a-z]{4}\d{14}", id="iban-with-letters"),
        pytest.param("(212) 555-0134", r"\([2-9]\d\d\) [2-9]\d\d-\d{4}", id="phone-american"),
        pytest.param("call +1 212-555-0134 x12", r"call \+1 [2-9]\d\d-[2-9]\d\d-\d{4} x\d\d",
                     id="phone-extension"),
        pytest.param("+49 30 9018201", r"\+49 \d\d \d{7}", id="phone-german"),
        pytest.param("0044 20 7946 0958", r"0044 \d\d \d{4} \d{4}", id="phone-double-zero"),
        pytest.param("0171/2345678", r"0[1-9]\d\d/\d{7}", id="phone-slash"),
        pytest.param("我叫张伟。", r"我叫[\u4e00-\u9fff]{2,4}。", id="name-chinese"),
        pytest.param("tel. 0171 2345678", r"tel. 0[1-9]\d\d \d{7}", id="phone-trunk"),
        pytest.param("078-05-1120", r"\d{3}-\d\d-\d{4}", id="ssn"),
        pytest.param("CPF 529.982.247-25", r"CPF \d{3}\.\d{3}\.\d{3}-\d\d", id="brazilian"),
        pytest.param("passport: C01X-00T47", r"passport: [A-Z]\d\d[A-Z]-\d\d[A-Z]\d\d",
                     id="passport"),
        pytest.param("from 84.17.203.9", r"from \d\d\.\d\d\.\d{3}\.\d", id="ip"),
        pytest.param("host 192.168.104.20", r"host 192\.168\.\d{3}\.\d\d", id="ip-private"),
        pytest.param("2001:db8::8a2e:370:7334", r"2001:[0-9a-f]{3}::[0-9a-f]{4}:[0-9a-f]{3}"
                     ":[0-9a-f]{4}", id="ip-6"),
        pytest.param("825 Laurel Lane, Suite 5", r"\d{3} [A-Z][a-z]+ Lane, Suite \d",
                     id="address"),
        pytest.param("Lindenstraße 12b", r"[A-Z][^\W\d_]+straße \d\db", id="address-german"),
        pytest.param("12, rue de la Paix", r"\d\d, rue de la [A-Z][^\W\d_]+", id="address-french"),
        pytest.param("I'm Sofia Kim.", r"I'm [A-Z][a-z]+ [A-Z][a-z]+\.", id="name"),
        pytest.param("my name is SOFIA", "my name is [A-Z]{4,}", id="name-in-capitals"),
        pytest.param("Ann@ACME.co.uk", r"[A-Z][a-z]+@[A-Z]+\.CO\.UK|[A-Z][a-z]+@[A-Z]+\.co\.uk",
                     id="email"),
        pytest.param("ann.lee81@gmail.com", r"[a-z]+\.[a-z]+\d\d@gmail\.com", id="email-provider"),
        pytest.param("password: hunter2!X", r"password: [a-z]{6}\d\S[A-Z]", id="password"),
        pytest.param(f"token {TOKEN}", r"token ghp_[A-Za-z0-9]{36}", id="github"),
        pytest.param("AKIAIOSFODNN7QZXCVBN", "AKIA[A-Z0-9]{16}", id="aws"),
        pytest.param(JWT, r"eyJ\w{17}\.eyJ\w{24}\.\w{22}_\w{12}", id="jwt"),
        pytest.param(PEM, r"-----BEGIN RSA PRIVATE KEY-----\n\w{20}\n\w{6}==\n"
                     "-----END RSA PRIVATE KEY-----", id="private-key"),
        pytest.param("postgres://ann:s3cret@db.acme.com/x",
                     r"postgres://[a-z]{3}:[a-z]\d[a-z]{4}@[a-z]{2}\.[a-z]{4}\.[a-z]{3}/[a-z]",
                     id="connection"),
    ],
)  # fmt: skip
def test_a_surrogate_has_the_form_of_its_value_and_is_read_as_one(text: str, form: str):
    for key in KEYS:
        replaced = made_up(text, key)
        assert replaced != text
        assert re.fullmatch(form, replaced), replaced
        assert said(replaced) == said(text)


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        pytest.param("card 4222222222222", identity_numbers.is_card, id="card-of-13"),
        pytest.param("6011111111111117", identity_numbers.is_card, id="discover"),
        pytest.param("FR1420041010050500013M02606", identity_numbers.normal_iban, id="iban"),
        pytest.param("12345678Z", identity_numbers.spanish, id="spanish"),
        pytest.param("X1234567L", identity_numbers.spanish, id="spanish-foreigner"),
        pytest.param("RSSMRA85T10A562S", identity_numbers.italian, id="italian"),
        pytest.param("255081416802538", identity_numbers.french, id="french"),
        pytest.param("PESEL 44051401359", identity_numbers.polish, id="polish"),
        pytest.param("BSN 111222333", identity_numbers.dutch, id="dutch"),
        pytest.param("NHS number 9434765919", identity_numbers.british_health, id="nhs"),
        pytest.param("aadhaar 234123412346", identity_numbers.indian, id="indian"),
        pytest.param("my SIN is 046454286", identity_numbers.luhn, id="canadian"),
    ],
)  # fmt: skip
def test_check_digits_hold(text: str, holds: object):
    assert callable(holds)
    drawn = {made_up(text, key).split(" ")[-1] for key in KEYS}
    assert len(drawn) > len(KEYS) / 2
    assert all(holds(number) for number in drawn), drawn
    assert text.split(" ")[-1] not in drawn


def test_a_value_has_one_surrogate_in_the_spelling_of_each_place():
    card = "4111 1111 1111 1111"
    replaced = stand_in(
        Conversation(
            [
                {"role": "system", "content": "You serve Ann@ACME.com."},
                user(f"Charge {card}, tell bob@acme.com and call 212-555-0134"),
                text_call('{"card": "4111-1111-1111-1111", "phone": "(212) 555 0134", "n": 2}'),
                {"role": "tool", "content": '{"ok": true, "card": 4111111111111111}'},
            ],
            [],
            [logs.say("Told BOB@acme.com; 12125550134 is yours.")],
            [{"name": "pay", "arguments": {"card": [4111111111111111, card]}}],
        )
    )
    charged = str(replaced.messages[1]["content"])
    surrogates = re.fullmatch(r"Charge ([0-9 ]+), tell (\S+) and call ([0-9-]+)", charged)
    assert surrogates is not None
    drawn, bob, phone = surrogates.groups()
    digits, dialled = drawn.replace(" ", ""), phone.replace("-", "")
    assert arguments(replaced.messages[2]) == {
        "card": drawn.replace(" ", "-"),
        "phone": f"({dialled[:3]}) {dialled[3:6]} {dialled[6:]}",
        "n": 2,
    }
    assert replaced.messages[3]["content"] == f'{{"ok": true, "card": {digits}}}'
    assert replaced.acceptable == [{"name": "pay", "arguments": {"card": [int(digits), drawn]}}]
    mailbox, domain = bob.split("@")
    assert (
        replaced.answers[0]["content"] == f"Told {mailbox.upper()}@{domain}; 1{dialled} is yours."
    )
    # Two addresses of one domain stay in one.
    assert str(replaced.messages[0]["content"]).lower().endswith(f"@{domain}.")


def test_an_address_made_of_a_name_is_made_of_its_surrogate():
    conversation = Conversation(
        [user("I'm Sofia Kim (sofia_kim_7287)."), user("sofia.kim93@acme.com, SKim@acme.com")]
    )
    named, mails = (str(message["content"]) for message in stand_in(conversation).messages)
    surrogates = re.fullmatch(r"I'm ([A-Z][a-z]+) ([A-Z][a-z]+) \((\w+)\)\.", named)
    assert surrogates is not None
    first, last = surrogates[1].lower(), surrogates[2].lower()
    assert surrogates[3] == f"{first}_{last}_7287"
    assert re.fullmatch(rf"{first}\.{last}\d\d@(\w+\.com), {first[0]}{last}@\1", mails.lower())


def test_schema_values_stay_consistent_with_calls():
    people: Json = ["ann@acme.com", "bob@acme.com", "ANN@ACME.COM", "nobody"]
    schema: Json = {
        "type": "object",
        "properties": {"to": {"enum": people}, "passport": {"pattern": "^[A-Z][0-9]{8}$"}},
    }
    tool: dict[str, Json] = {
        "type": "function",
        "function": {"name": "send", "parameters": schema},
    }
    answer = logs.call("send", '{"to": "bob@acme.com", "passport": "C01234567"}')
    conversation = Conversation([user("Mail Bob and ann@acme.com")], [tool], [answer])
    now = stand_in(conversation)
    (said_now,) = now.tools
    match said_now:
        case {"function": {"parameters": {"properties": {"to": {"enum": list(enum)}}} as schema}}:
            pass
        case _:
            raise AssertionError(said_now)
    assert len({*map(str, enum)}) == len(people)
    assert enum[3] == "nobody"
    assert str(enum[0]).upper() == enum[2]
    called = arguments(now.answers[0])
    assert isinstance(called, dict)
    assert called["to"] == enum[1]
    assert jsonschema_rs.is_valid(schema, called)


def test_placeholders_in_user_text_stay():
    replaced = made_up("<EMAIL_1> and <NAME_2> wrote to ann@acme.com")
    assert re.fullmatch(r"<EMAIL_1> and <NAME_2> wrote to \w+@\w+\.com", replaced)


def test_placeholders_in_a_correction_refer_to_the_values():
    card = "4111 1111 1111 1111"
    conversation = Conversation(
        [user(f"Charge {card} for ann@acme.com")],
        answers=[
            logs.call("pay", '{"card": "<CARD_1>", "to": "<EMAIL_1>", "cc": "<EMAIL_7>"}'),
            logs.say("I can't charge <CARD_1>."),
        ],
        is_corrected=True,
    )
    by_the_model = stand_in(conversation)
    # Production said it, so it is no value there; the card is the second then.
    assert by_the_model.answers[1]["content"] == "I can't charge <CARD_1>."
    corrected = stand_in(
        Conversation(conversation.messages, answers=[conversation.answers[0]], is_corrected=True)
    )
    surrogates = re.fullmatch(
        r"Charge ([\d ]{19}) for (\S+)", str(corrected.messages[0]["content"])
    )
    assert surrogates is not None
    assert arguments(corrected.answers[0]) == {
        "card": surrogates[1],
        "to": surrogates[2],
        "cc": "<EMAIL_7>",
    }
    uncorrected = stand_in(Conversation(conversation.messages, answers=[conversation.answers[0]]))
    assert "<CARD_1>" in json.dumps(uncorrected.answers)


def test_no_two_values_have_one_surrogate_even_where_a_list_runs_out_of_names():
    letters = [a + b + c for a in "bcdfg" for b in "aeiou" for c in string.ascii_lowercase]
    names = [f"{beginning.title()}ther" for beginning in letters]
    people: Json = [{"first_name": name} for name in names]
    answer = logs.call("book", json.dumps({"passengers": people}))
    (drawn,) = stand_in(Conversation([user("book")], answers=[answer])).answers
    called = arguments(drawn)
    assert isinstance(called, dict)
    surrogates = [str(passenger["first_name"]).lower() for passenger in called["passengers"]]  # type: ignore[index,union-attr]
    assert len(set(surrogates)) == len(names) > 600
    assert set(surrogates).isdisjoint(name.lower() for name in names)


def test_no_surrogate_is_a_value_of_the_log_or_occurs_in_the_texts():
    listed = [made_up("I'm Sofia.", key)[4:-1].lower() for key in KEYS]
    for key, taken in zip(KEYS, listed, strict=True):
        now = made_up("I'm Sofia.", key, listed)
        assert now[4:-1].lower() not in listed
        beside = made_up(f"I'm Sofia. Is {taken} here?", key)
        assert not beside.lower().startswith(f"i'm {taken}")


def test_another_key_draws_other_surrogates_and_the_same_key_the_same():
    text = "Charge 4111 1111 1111 1111, ann@acme.com, I'm Sofia Kim, 212-555-0134"
    assert len({made_up(text, key) for key in KEYS}) == len(KEYS)
    assert made_up(text, KEYS[1]) == made_up(text, KEYS[1])


@pytest.mark.parametrize(
    ("language", "name", "script"),
    [
        pytest.param("de", "jürgen", "LATIN", id="german"),
        pytest.param("ru", "иван", "CYRILLIC", id="russian"),
        pytest.param("uk", "тарас", "CYRILLIC", id="ukrainian"),
        pytest.param("el", "γιώργος", "GREEK", id="greek"),
        pytest.param("en", "иван", "CYRILLIC", id="russian-in-english"),
        pytest.param("ru", "sofia", "LATIN", id="latin-in-russian"),
        pytest.param("zh", "王小明", "CJK", id="chinese"),
        pytest.param("ko", "민준", "HANGUL", id="korean"),
        pytest.param("he", "משה", "HEBREW", id="hebrew"),
        pytest.param("th", "สมชาย", "LATIN", id="unlisted"),
    ],
)
def test_a_name_stays_in_its_script(language: str, name: str, script: str):
    drawn = {
        surrogate_names.draw(name, language, surrogate_names.Chance(key, name)) for key in KEYS
    }
    assert len(drawn) > 3
    assert {surrogate_names.script_of(surrogate) for surrogate in drawn} == {script}


@pytest.mark.parametrize("name", ["mary", "james"])
def test_a_first_name_stays_a_womans_or_a_mans(name: str):
    names = surrogate_names.listed("en_US")
    ring = names.like(name)
    for key in KEYS:
        assert surrogate_names.draw(name, "en", surrogate_names.Chance(key, name)) in ring.names


def test_a_password_of_signs_is_replaced_too():
    replaced = made_up("password: #$%^&*!")
    assert replaced != "password: #$%^&*!"
    assert len(replaced) == len("password: #$%^&*!")


def test_an_allowed_value_is_never_a_surrogate():
    settings = Redaction(allow_patterns=("[0-4].*",))
    for key in KEYS:
        (message,) = stand_in(
            Conversation([user("call 912-555-0134")]), key, settings=settings
        ).messages
        assert str(message["content"])[5] in "56789"
