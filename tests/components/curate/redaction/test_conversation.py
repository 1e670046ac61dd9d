import json

import pytest

from components.curate.redaction.redactor import Conversation
from components.schema import Json
from tests.support import logs
from tests.support.talk import arguments, redact, said, stand_in, text_call, user

CARD = "4111 1111 1111 1111"


def test_a_value_has_one_placeholder_everywhere():
    tool: dict[str, Json] = {
        "type": "function",
        "function": {
            "name": "pay",
            "description": "Pays for ann@acme.com.",
            "parameters": {
                "type": "object",
                "properties": {"mail": {"type": "string", "enum": ["ann@acme.com", "none"]}},
                "required": ["mail"],
            },
        },
    }
    conversation = Conversation(
        [
            {"role": "system", "content": "You serve Ann@ACME.com."},
            user(f"Charge {CARD}, tell bob@acme.com and call 212-555-0134"),
            text_call('{"card": "4111-1111-1111-1111", "phone": "(212) 555 0134", "n": 2}'),
            {"role": "tool", "content": f'{{"ok": true, "card": {CARD.replace(" ", "")}}}'},
        ],
        [tool],
        [logs.say("Told BOB@acme.com; 12125550134 is yours.")],
        [
            {
                "name": "pay",
                "arguments": {"card": ["4111111111111111", CARD], "mail": ["ann@acme.com"]},
            }
        ],
    )
    redacted = redact(conversation)
    now = redacted.conversation
    assert now.messages[0]["content"] == "You serve <EMAIL_1>."
    assert now.messages[1]["content"] == "Charge <CARD_1>, tell <EMAIL_2> and call <PHONE_1>"
    assert arguments(now.messages[2]) == {"card": "<CARD_1>", "phone": "<PHONE_1>", "n": 2}
    assert now.messages[3]["content"] == '{"ok": true, "card": "<CARD_1>"}'
    assert now.answers[0]["content"] == "Told <EMAIL_2>; <PHONE_1> is yours."
    accepted: Json = {"card": ["<CARD_1>", "<CARD_1>"], "mail": ["<EMAIL_1>"]}
    assert now.acceptable == [{"name": "pay", "arguments": accepted}]
    expected = json.loads(json.dumps(tool).replace("ann@acme.com", "<EMAIL_1>"))
    assert now.tools == [expected]
    assert redacted.values == {"email": 2, "card": 1, "phone": 1}


def test_names_of_functions_and_ids_stay():
    call: dict[str, Json] = {
        "id": "call_4111111111111111",
        "type": "function",
        "function": {"name": "pay", "arguments": '{"grace_period": 1, "line_2": "Grace"}'},
    }
    messages: list[dict[str, Json]] = [
        user("hi"),
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_4111111111111111", "name": "pay", "content": "ok"},
    ]
    conversation = Conversation(messages, [logs.WEATHER])
    assert redact(conversation).conversation == conversation


def test_a_value_is_replaced_in_the_keys_of_a_map():
    result = (
        '{"ann@acme.com": {"id": 1}, "ann_lee_7287": 2, "4111111111111111": 3, "total_2025": 4}'
    )
    conversation = Conversation(
        [user("I'm Ann Lee, ann@acme.com"), {"role": "tool", "content": result}],
        answers=[text_call('{"ANN@acme.com": "ok"}')],
    )
    redacted = redact(conversation).conversation
    assert json.loads(str(redacted.messages[1]["content"])) == {
        "<EMAIL_1>": {"id": 1},
        "<NAME_1>_<NAME_2>_7287": 2,
        "<CARD_1>": 3,
        "total_2025": 4,
    }
    now = stand_in(conversation)
    mail = str(now.messages[0]["content"]).split(", ")[1]
    assert next(iter(json.loads(str(now.messages[1]["content"])))) == mail
    assert arguments(now.answers[0]) == {
        mail.split("@")[0].upper() + "@" + mail.split("@")[1]: "ok"
    }


def test_a_name_in_an_applications_text_is_replaced():
    system: dict[str, Json] = {
        "role": "system",
        "content": "Help. Customer name: Sofia Kim. Be kind",
    }
    redacted = redact(Conversation([system, user("Sofia here")])).conversation
    assert redacted.messages[0]["content"] == "Help. Customer name: <NAME_1> <NAME_2>. Be kind"
    assert redacted.messages[1]["content"] == "<NAME_1> here"


def test_an_example_in_a_tools_description_stays_unless_it_is_a_value():
    text = "A mail, e.g. ann@acme.com. Ask help@acme.com"
    tool: dict[str, Json] = {"type": "function", "function": {"name": "t", "description": text}}
    alone = redact(Conversation([user("hi")], [tool])).conversation.tools
    assert alone == [tool]
    meant = redact(Conversation([user("ann@acme.com")], [tool])).conversation.tools
    assert "<EMAIL_1>" in json.dumps(meant)
    plain: dict[str, Json] = {
        "type": "function",
        "function": {"name": "t", "description": "Tells help@acme.com"},
    }
    assert "<EMAIL_1>" in json.dumps(redact(Conversation([user("hi")], [plain])).conversation.tools)


def test_json_in_text_keeps_its_formatting():
    for text in ('{"a":"x@b.com","ü":[1.50,null]}', '{"a": "x@b.com", "\\u00fc": 1}'):
        conversation = Conversation([user("hi"), text_call(text)])
        redacted = redact(conversation).conversation.messages[1]
        expected = text_call(text.replace("x@b.com", "<EMAIL_1>").replace("1.50", "1.5"))
        assert redacted == expected


def test_existing_placeholders_keep_their_numbers():
    assert said("<EMAIL_3> wrote to ann@acme.com") == "<EMAIL_3> wrote to <EMAIL_4>"


@pytest.mark.parametrize(
    ("text", "left"),
    [
        pytest.param(
            'Result: {"first_name": "Sofia", "phone": "2125550134", "password": "hun, ter 2"}',
            'Result: {"first_name": "<NAME_1>", "phone": "<PHONE_1>", "password": "<PASSWORD_1>"}',
            id="after-a-word",
        ),
        pytest.param(
            '```json\n{"lastName": "Kim", "card_number": 4222222222222}\n```',
            '```json\n{"lastName": "<NAME_1>", "card_number": <CARD_1>}\n```',
            id="code-fence",
        ),
        pytest.param(
            '{"phone": "2125550134"}\n{"phone": "2125550135"}',
            '{"phone": "<PHONE_1>"}\n{"phone": "<PHONE_2>"}',
            id="json-lines",
        ),
        pytest.param(
            '{"passengers": [{"passenger": "Sofia Kim", "ssn": "078051120',
            '{"passengers": [{"passenger": "<NAME_1> <NAME_2>", "ssn": "<SSN_1>',
            id="cut-off",
        ),
        pytest.param(
            '\n{"name": "Sofia", "phone": "2125550134"} ',
            '\n{"name": "<NAME_1>", "phone": "<PHONE_1>"} ',
            id="spaces-around",
        ),
        pytest.param(
            '"{\\"phone\\": \\"2125550134\\"}"', '"{\\"phone\\": \\"<PHONE_1>\\"}"', id="escaped"
        ),
        pytest.param(
            "<first_name>Sofia</first_name><password>sesame</password>",
            "<first_name><NAME_1></first_name><password><PASSWORD_1></password>",
            id="xml",
        ),
        pytest.param(
            "- **Customer name:** Sofia Kim\n- Phone: 2125550134\nFirst name: see below",
            "- **Customer name:** <NAME_1> <NAME_2>\n- Phone: <PHONE_1>\nFirst name: see below",
            id="list",
        ),
    ],
)
def test_a_field_within_a_text_is_read(text: str, left: str):
    for role in ("system", "tool"):
        conversation = Conversation([user("hi"), {"role": role, "content": text}])
        assert redact(conversation).conversation.messages[1]["content"] == left


def test_a_value_found_by_its_field_is_replaced_in_earlier_text():
    conversation = Conversation(
        [user("use 5512345678 and sesame99")],
        answers=[text_call('{"phone_number": "5512345678", "password": "sesame99"}')],
    )
    redacted = redact(conversation).conversation
    assert redacted.messages[0]["content"] == "use <PHONE_1> and <PASSWORD_1>"
    assert arguments(redacted.answers[0]) == {
        "phone_number": "<PHONE_1>",
        "password": "<PASSWORD_1>",
    }
