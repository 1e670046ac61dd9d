"""Shapes of logs that applications write, made from a seed, with what is true of each line.

``SHAPES`` has them all. Words are made up, so no two requests are alike unless a shape says so.
"""

import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TypeAlias

from components.schema import Json
from tests.support import logs

START = 1_760_000_000
LABELS = ("cards", "transfers", "rates", "branches", "other")
TEMPLATE = (
    "You are the assistant of a bank and read one message of a customer. Decide which of the bank's"
    " topics it is about, and answer with the name of that topic alone, in lower case, without any"
    " explanation. Never translate anything and never greet the customer. If no topic fits, say"
    " other. This is what the customer wrote to us today:"
)
OTHER_TEMPLATES = (
    "Read the text that follows and tell us in one word what the writer wants us to do about it:",
    "Ordne die folgende Anfrage genau einem Thema zu und antworte nur mit dem Namen des Themas:",
    "Text of the customer, in any language, to be put under one of the topics that you know well:",
)
NOTICE = "Answer with the topic only, and keep in mind that a wrong one costs the customer time."
IMAGE = "data:image/png;base64,iVBORw0KGgo="

Messages: TypeAlias = list[dict[str, Json]]


@dataclass(frozen=True, slots=True)
class Logged:
    """One log line, and what is true of it because of how it was made.

    ``request`` names what is asked: of the lines of one name one example is kept, as of retries.
    ``conversation`` names the lines that must stand on one side, ``cluster`` those that are not
    independent of each other. ``asked`` is what the line says itself, without what is common.
    ``is_learnable`` is false where no example can be made of it. ``feedback`` is what people said
    of it.
    """

    line: dict[str, Json]
    request: str
    conversation: str
    asked: str
    cluster: str
    is_learnable: bool = True
    feedback: tuple[dict[str, Json], ...] = ()

    def judged(self, kind: str, value: Json, by: str) -> "Logged":
        """Return the line with what somebody said of its answer half a minute later."""
        response, at = self.line["response"], self.line["timestamp"]
        assert isinstance(response, dict)
        assert isinstance(at, int)
        names = {"response_id": response["id"], "workload_id": self.line["workload_id"]}
        said = logs.feedback(kind, value, actor_id=by, timestamp=at + 30, **names)
        return replace(self, feedback=(*self.feedback, said), is_learnable=value != "down")


Write: TypeAlias = Callable[["Author", int], list[Logged]]
"""Writes about so many lines."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A shape of logs, and what curation has to make of it.

    ``rules`` is what the workload's file says under ``curate``. At least ``floor`` of the different
    learnable requests are kept, and nothing is left out for other reasons than ``objections``, of
    which a person is ``asked`` about some. The holdout is within ``slack`` of the share that is
    wanted. ``clusters_are_known`` is false where requests have more in common than the generator
    keeps count of. ``exceeds_window`` tells that some rows are longer than the tiny model's window.
    ``metric`` is the gate's target.
    """

    name: str
    write: Write
    lines: int = 150
    rules: Mapping[str, Json] = field(default_factory=dict[str, Json])
    objections: frozenset[str] = frozenset()
    floor: float = 1.0
    slack: float = 0.2
    clusters_are_known: bool = True
    asked: frozenset[str] = frozenset()
    exceeds_window: bool = False
    metric: str = "label"
    is_slow: bool = False


class Author:
    """Writes lines of one workload, each at its time; equal seeds write equal lines."""

    def __init__(self, workload: str, seed: int) -> None:
        self.workload = workload
        self.chance = random.Random(f"{workload} {seed}")
        self._words = _vocabulary(self.chance)
        self._lines = 0

    def words(self, count: int) -> str:
        """Draw words."""
        return " ".join(self.chance.choices(self._words, k=count))

    def label(self) -> str:
        """Draw a label."""
        return self.chance.choice(LABELS)

    def log(
        self,
        messages: Messages,
        answer: str | dict[str, Json],
        *,
        asked: str,
        request: str | None = None,
        conversation: str | None = None,
        cluster: str | None = None,
        is_learnable: bool = True,
        tools: Sequence[Json] = (),
        **changes: Json,
    ) -> Logged:
        """Write one line, a minute after the last; by default its request stands for itself."""
        self._lines += 1
        name = f"{self.workload}-{self._lines}"
        asking: dict[str, Json] = {"messages": [*messages]}
        if tools:
            asking["tools"] = [*tools]
        line = logs.interaction(
            message=logs.say(answer) if isinstance(answer, str) else answer,
            response_id=name,
            workload_id=self.workload,
            timestamp=START + 60 * self._lines,
            request=asking,
        )
        own = conversation or request or name
        return Logged(
            line | changes, request or name, own, asked, cluster or own, is_learnable=is_learnable
        )


def _vocabulary(chance: random.Random) -> list[str]:
    starts, middles, ends = "bdfgklmnprstvz", "aeiou", ("la", "mi", "no", "ru", "ste")
    words = [f"{a}{b}{c}{d}" for a in starts for b in middles for c in starts for d in ends]
    return chance.sample(words, 2000)


def user(*texts: str) -> Messages:
    """Write messages of a user."""
    return [{"role": "user", "content": text} for text in texts]


def system(text: str) -> Messages:
    """Write a system message."""
    return [{"role": "system", "content": text}]


def under(write: Callable[[Author, str], Messages]) -> Write:
    """Write different questions, each answered by a label; ``write`` makes the messages of one."""

    def lines(author: Author, count: int) -> list[Logged]:
        questions = [author.words(8) for _ in range(count)]
        return [author.log(write(author, one), author.label(), asked=one) for one in questions]

    return lines


def under_system(_: Author, question: str) -> Messages:
    """Write a question after an instruction in the system message."""
    return [*system(TEMPLATE), *user(question)]


def _variables(author: Author, text: str) -> str:
    name = " ".join(author.words(2).title().split())
    day = datetime.fromtimestamp(START, UTC) + timedelta(minutes=author.chance.randrange(10**6))
    return f"The customer is {name}, and it is {day:%A, %d %B %Y, %H:%M}. {text}"


def _templates(author: Author, question: str) -> Messages:
    template = author.chance.choice((TEMPLATE, *OTHER_TEMPLATES))
    return user(f"{template} {question}")


def documents(author: Author, count: int, *, words: int = 3000) -> list[Logged]:
    """Write three questions of ten words about each document, which stands before them."""
    lines: list[Logged] = []
    for number in range(count // 3):
        text = author.words(words)
        for question in [author.words(10) for _ in range(3)]:
            said = f"{text}\n\n{question}"
            answer = author.words(20)
            lines.append(
                author.log(user(said), answer, asked=said, conversation=f"document {number}")
            )
    author.chance.shuffle(lines)
    return lines


def retrieval(author: Author, count: int, *, passages: int = 15, words: int = 300) -> list[Logged]:
    """Write questions that follow three passages each, which others have been given, too."""
    found_among = [author.words(words) for _ in range(passages)]
    lines: list[Logged] = []
    for _ in range(count):
        found, question = author.chance.sample(found_among, 3), author.words(10)
        said = "\n\n".join(["Answer from these passages.", *found, question])
        lines.append(author.log(user(said), author.words(20), asked=question))
    return lines


def short_questions(author: Author, count: int, *, passages: int = 40) -> list[Logged]:
    """Write questions of twelve words, of which three are a topic's, after three passages."""
    found_among = [author.words(60) for _ in range(passages)]
    sentences = [author.words(9).split() for _ in range(20)]
    topics = [author.words(1) for _ in range(60)]
    lines: list[Logged] = []
    for _ in range(count):
        words = [*author.chance.choice(sentences)]
        for place in (2, 6, 12):
            words.insert(place, author.chance.choice(topics))
        question = " ".join(words)
        said = "\n\n".join([*author.chance.sample(found_among, 3), question])
        lines.append(author.log(user(said), author.words(20), asked=question))
    return lines


def conversations(
    author: Author,
    count: int,
    *,
    turns: int = 3,
    most: int | None = None,
    opening: str | None = None,
    has_id: bool = False,
    repeats_history: bool = True,
) -> list[Logged]:
    """Write conversations turn by turn, each turn with those before it, or the ``most`` newest.

    Those of one ``opening`` have their first request in common.
    """
    lines: list[Logged] = []
    for number in range(count // turns):
        history: Messages = []
        name = f"conversation {number}"
        for turn in range(turns):
            is_opening = turn == 0 and opening is not None
            question = opening if is_opening and opening is not None else author.words(9)
            answer = "Hello! How can I help?" if is_opening else author.words(15)
            history += user(question)
            shown = history if most is None else history[-most:]
            messages = [*system(TEMPLATE), *(shown if repeats_history else user(question))]
            own = "opening" if is_opening else name
            lines.append(
                author.log(
                    messages,
                    answer,
                    asked=" ".join(str(one["content"]) for one in messages[1:]),
                    request=opening if is_opening else None,
                    conversation=own,
                    conversation_id=f"talk-{number}" if has_id else None,
                )
            )
            history += [logs.say(answer)]
    return lines


def retries(author: Author, count: int) -> list[Logged]:
    """Write requests that are sent one to four times within a minute, answered in other words."""
    lines: list[Logged] = []
    while len(lines) < count:
        question = author.words(12)
        for attempt in range(author.chance.randint(1, 4)):
            lines.append(
                author.log(
                    [*system(TEMPLATE), *user(question)],
                    author.words(15),
                    asked=question,
                    request=question,
                    timestamp=START + 90 * len(lines) + attempt,
                )
            )
    return lines


def conflicts(author: Author, count: int) -> list[Logged]:
    """Write requests of which one in five comes back with another label."""
    lines: list[Logged] = []
    while len(lines) < count:
        question = author.words(12)
        for label in author.chance.sample(LABELS, 1 + (author.chance.random() < 0.2)):
            messages = [*system(TEMPLATE), *user(question)]
            lines.append(author.log(messages, label, asked=question, request=question))
    return lines


def two_models(author: Author, count: int) -> list[Logged]:
    """Write requests of which some went to two models at once, which answer in other words."""
    lines: list[Logged] = []
    while len(lines) < count:
        question, at = author.words(12), START + 100 * len(lines)
        messages = [*system(TEMPLATE), *user(question)]
        for model in author.chance.choice((["a"], ["b"], ["a", "b"])):
            one = author.log(
                messages, author.words(15), asked=question, request=question, timestamp=at
            )
            one.line["request"] = {"model": f"model-{model}", "messages": [*messages]}
            lines.append(one)
    return lines


def one_label(author: Author, count: int) -> list[Logged]:
    """Write questions of which 97 in 100 have one label."""
    questions = [author.words(8) for _ in range(count)]
    return [
        author.log([*system(TEMPLATE), *user(one)], "fraud" if n % 33 == 0 else "fine", asked=one)
        for n, one in enumerate(questions)
    ]


def json_answers(author: Author, count: int) -> list[Logged]:
    """Write questions that are answered by JSON, its keys and spaces in any order."""
    lines: list[Logged] = []
    for _ in range(count):
        question = author.words(8)
        fields: list[tuple[str, Json]] = [
            ("topic", author.label()),
            ("urgent", author.chance.random() < 0.5),
            ("words", [*author.words(2).split()]),
        ]
        author.chance.shuffle(fields)
        answer = json.dumps(dict(fields), indent=author.chance.choice((None, 2)))
        messages = user(f"{TEMPLATE} {question} Answer with JSON.")
        lines.append(author.log(messages, answer, asked=question))
    return lines


TOPIC: dict[str, Json] = {
    "type": "object",
    "properties": {"topic": {"enum": [*LABELS]}, "urgent": {"type": "boolean"}},
    "required": ["topic", "urgent"],
}


def json_schema(author: Author, count: int) -> list[Logged]:
    """Write requests for JSON of a schema, of which one in fifty is answered by an apology."""
    lines: list[Logged] = []
    form: Json = {"type": "json_schema", "json_schema": {"name": "topic", "schema": TOPIC}}
    for number in range(count):
        question = author.words(8)
        answer = json.dumps({"topic": author.label(), "urgent": author.chance.random() < 0.5})
        lines.append(
            author.log(
                user(f"{TEMPLATE} {question}"),
                answer if number % 50 else "I could not read this message.",
                asked=question,
            )
        )
        request = lines[-1].line["request"]
        assert isinstance(request, dict)
        request["response_format"] = form
    return lines


def many_labels(author: Author, count: int) -> list[Logged]:
    """Write questions whose answers are 150 labels."""
    lines: list[Logged] = []
    for number in range(count):
        question = author.words(8)
        answer = f"intent_{number % 150}"
        lines.append(author.log([*system(TEMPLATE), *user(question)], answer, asked=question))
    author.chance.shuffle(lines)
    return lines


def thoughts(author: Author, count: int) -> list[Logged]:
    """Write questions whose labels come after a thought."""
    lines: list[Logged] = []
    for _ in range(count):
        question = author.words(8)
        answer = f"<think>\n{author.words(30)}\n</think>\n\n{author.label()}"
        lines.append(author.log([*system(TEMPLATE), *user(question)], answer, asked=question))
    return lines


def tool_results(author: Author, count: int, *, words: int = 500) -> list[Logged]:
    """Write calls, each followed by a turn that reads a tool result longer than a small window.

    Both turns are of one conversation, and the second one's prompt has the result in it.
    """
    lines: list[Logged] = []
    for number in range(count // 2):
        name, city, question = f"conversation {number}", author.words(1), author.words(8)
        asked = f"{question} {city}"
        call = logs.call("weather", json.dumps({"city": city}))
        first = user(asked)
        result: dict[str, Json] = {
            "role": "tool",
            "tool_call_id": "call_1",
            "content": author.words(words),
        }
        lines.append(author.log(first, call, asked=asked, conversation=name, tools=[logs.WEATHER]))
        lines.append(
            author.log(
                [*first, call, result],
                author.words(12),
                asked=f"{asked} {result['content']}",
                conversation=name,
                tools=[logs.WEATHER],
            )
        )
    return lines


def images(author: Author, count: int) -> list[Logged]:
    """Write messages in parts, one in five with an image, which no text model can be taught."""
    lines: list[Logged] = []
    for number in range(count):
        question, has_image = author.words(8), number % 5 == 0
        parts: list[Json] = [{"type": "text", "text": f"{TEMPLATE} "}]
        if has_image:
            parts.append({"type": "image_url", "image_url": {"url": IMAGE}})
        parts.append({"type": "text", "text": question})
        message: dict[str, Json] = {"role": "user", "content": parts}
        lines.append(
            author.log([message], author.label(), asked=question, is_learnable=not has_image)
        )
    return lines


ALPHABETS = ("abcdefghiklmnoprstuvz", "абвгдежзиклмнопрстуя", "अआइउएकखगघचजटडणतदनपबमयरलवसह")
IDEOGRAPHS = (
    "请阅读下面的客户信息判断意图只回答名称不要解释也翻译如银行卡转账利率分行其他问题明天今天昨天"
)


def languages(author: Author, count: int) -> list[Logged]:
    """Write questions in four scripts, one of them without spaces, under one template."""
    chance, lines = author.chance, list[Logged]()
    for number in range(count):
        if number % 4 == 3:
            question = "".join(chance.choices(IDEOGRAPHS, k=16)) + "?"
        else:
            letters = ALPHABETS[number % 4]
            words = ["".join(chance.choices(letters, k=chance.randint(3, 8))) for _ in range(8)]
            question = " ".join(words)
        lines.append(author.log(user(f"{TEMPLATE} {question}"), author.label(), asked=question))
    return lines


def skew(author: Author, count: int) -> list[Logged]:
    """Write conversations whose clocks are hours apart, in several forms, in no order."""
    lines = conversations(author, count)
    for one in lines:
        at = datetime.fromtimestamp(START + author.chance.randint(-90_000, 90_000), UTC)
        forms: tuple[Json, ...] = (
            at.timestamp(),
            at.isoformat(),
            at.strftime("%Y-%m-%dT%H:%M:%SZ"),
            int(at.timestamp()),
        )
        one.line["timestamp"] = author.chance.choice(forms)
    author.chance.shuffle(lines)
    return lines


def two_users_at_once(author: Author, count: int) -> list[Logged]:
    """Write requests that two users each send in the same second, with equal answers."""
    lines: list[Logged] = []
    for number in range(count // 2):
        question, label = author.words(8), author.label()
        for who in ("ann", "bob"):
            lines.append(
                author.log(
                    [*system(TEMPLATE), *user(question)],
                    label,
                    asked=question,
                    request=question,
                    timestamp=START + number,
                    user_id=f"{who} {number}",
                )
            )
            lines[-1].line["response"] = {"choices": [{"index": 0, "message": logs.say(label)}]}
    return lines


def people(author: Author, count: int) -> list[Logged]:
    """Write three conversations a person, whose requests are a cluster that may be parted."""
    lines: list[Logged] = []
    for number in range(count):
        question, who = author.words(9), f"person {number % (count // 3)}"
        messages = [*system(TEMPLATE), *user(question)]
        lines.append(
            author.log(
                messages,
                author.label(),
                asked=question,
                cluster=who,
                user_id=who,
                conversation_id=f"talk {number}",
            )
        )
    return lines


def personal_arguments(author: Author, count: int) -> list[Logged]:
    """Write calls with personal data in their arguments."""
    lines: list[Logged] = []
    for _ in range(count):
        first, last = author.words(2).split()
        email = f"{first}.{last}@example.com"
        phone = f"+1 415 555 {author.chance.randrange(10_000):04d}"
        question = f"{author.words(8)} {email} {phone}"
        arguments = json.dumps({"city": author.words(1), "email": email, "phone": phone})
        call = logs.call("weather", arguments)
        lines.append(author.log(user(question), call, asked=question, tools=[logs.WEATHER]))
    return lines


def empty_answers(author: Author, count: int) -> list[Logged]:
    """Write questions of which one in eight is answered by nothing."""
    lines: list[Logged] = []
    for number in range(count):
        question, is_empty = author.words(8), number % 8 == 0
        nothing = logs.say(author.chance.choice(("", "  \n", None)))
        answer = nothing if is_empty else author.label()
        lines.append(author.log(user(question), answer, asked=question, is_learnable=not is_empty))
    return lines


def numbers(author: Author, count: int) -> list[Logged]:
    """Write one sentence with another order number each time, which a call repeats."""
    lines: list[Logged] = []
    for number in range(count):
        order = 40_000 + 7 * number
        question = f"Please tell me what the current status of my order number {order} is."
        call = logs.call("weather", json.dumps({"city": f"order {order}"}))
        lines.append(author.log(user(question), call, asked=question, tools=[logs.WEATHER]))
    return lines


def lookups(author: Author, count: int) -> list[Logged]:
    """Write one sentence about another person each time, whose address a call repeats."""
    lines: list[Logged] = []
    for _ in range(count):
        email = "{}.{}@example.com".format(*author.words(2).split())
        question = f"Please look up the account of {email} for me."
        call = logs.call("weather", json.dumps({"city": email}))
        lines.append(author.log(user(question), call, asked=question, tools=[logs.WEATHER]))
    return lines


def clock_in_tools(author: Author, count: int) -> list[Logged]:
    """Write short questions, each in two conversations; the tool's text has the time in it."""
    lines: list[Logged] = []
    for number in range(count // 2):
        question = author.words(5)
        call = logs.call("weather", json.dumps({"city": author.words(1)}))
        for attempt in range(2):
            about = f"Tell the weather. It is {author.words(2)}, {number}:{attempt}."
            function: dict[str, Json] = {"name": "weather", "description": about}
            lines.append(
                author.log(
                    user(question),
                    call,
                    asked=question,
                    conversation=question,
                    tools=[{"type": "function", "function": function}],
                    conversation_id=f"talk {number} {attempt}",
                )
            )
    return lines


def clock_in_system(author: Author, count: int) -> list[Logged]:
    """Write questions, each asked in two conversations, after another time and another name."""
    lines: list[Logged] = []
    for number in range(count // 2):
        question, label = author.words(5), author.label()
        for attempt in range(2):
            messages = [*system(_variables(author, TEMPLATE)), *user(question)]
            lines.append(
                author.log(
                    messages,
                    label,
                    asked=question,
                    conversation=question,
                    conversation_id=f"talk {number} {attempt}",
                )
            )
    return lines


def one_id(author: Author, count: int) -> list[Logged]:
    """Write conversations that all have the application's id in the place of their own."""
    lines = conversations(author, count)
    for one in lines:
        one.line.update(conversation_id="default", user_id="service")
    return lines


def one_time(author: Author, count: int) -> list[Logged]:
    """Write questions that were all logged at one time."""
    lines = under(under_system)(author, count)
    for one in lines:
        one.line["timestamp"] = START
    return lines


def greetings(author: Author, count: int) -> list[Logged]:
    """Write conversations that the assistant opens, under a developer's message."""
    lines: list[Logged] = []
    for number in range(count // 3):
        messages: Messages = [{"role": "developer", "content": TEMPLATE}]
        messages += [logs.say("Hello, how can I help you today?")]
        for _ in range(3):
            messages = [*messages, *user(author.words(9))]
            asked = " ".join(str(one["content"]) for one in messages[2:])
            answer = author.words(15)
            name = f"conversation {number}"
            lines.append(author.log(messages, answer, asked=asked, conversation=name))
            messages = [*messages, logs.say(answer)]
    return lines


def emojis(author: Author, count: int) -> list[Logged]:
    """Write requests without a letter."""
    signs = [chr(0x1F600 + n) for n in range(64)]
    asked = ["".join(author.chance.choices(signs, k=8)) for _ in range(count)]
    return [author.log(user(one), author.label(), asked=one) for one in asked]


def tenants(author: Author, count: int, *, size: int) -> list[Logged]:
    """Write questions under instructions of their own, one for each ``size`` requests."""
    lines: list[Logged] = []
    for number in range(count // size):
        template = author.words(200)
        for question in [author.words(8) for _ in range(size)]:
            said = f"{template}\n{question}"
            name = f"tenant {number}"
            lines.append(author.log(user(said), author.label(), asked=said, conversation=name))
    author.chance.shuffle(lines)
    return lines


BY_CONVERSATION: dict[str, Json] = {"split_by": "conversation"}
LONG: dict[str, Json] = {**BY_CONVERSATION, "max_prompt_chars": 100_000}
COPIES = frozenset({"duplicate", "near_duplicate"})


def _shapes() -> Iterator[Shape]:
    in_user = under(lambda _, question: user(f"{TEMPLATE} {question}"))
    yield Shape("instruction-in-user", in_user)
    yield Shape("instruction-in-system", under(under_system), is_slow=True)
    yield Shape(
        "instruction-in-both",
        under(lambda _, question: [*system(TEMPLATE), *user(f"{NOTICE} {question}")]),
        is_slow=True,
    )
    yield Shape("mixed-templates", under(_templates))
    yield Shape(
        "variables-in-system",
        under(lambda author, question: [*system(_variables(author, TEMPLATE)), *user(question)]),
        is_slow=True,
    )
    yield Shape(
        "variables-in-user",
        under(lambda author, question: user(f"{_variables(author, TEMPLATE)} {question} {NOTICE}")),
        floor=0.95,
    )
    yield Shape("documents", documents, 60, LONG, slack=0.3, metric="exact")
    yield Shape("short-documents", partial(documents, words=150), metric="exact", is_slow=True)
    yield Shape(
        "passages",
        partial(retrieval, words=60),
        clusters_are_known=False,
        metric="exact",
    )
    yield Shape(
        "short-questions",
        short_questions,
        700,
        objections=frozenset({"near_duplicate"}),
        floor=0.95,
        clusters_are_known=False,
        metric="exact",
        is_slow=True,
    )
    # What two to seven requests have in common is no template, so it overlaps with the holdout.
    yield Shape(
        "rare-passages",
        partial(retrieval, passages=90, words=60),
        objections=frozenset({"overlaps_holdout", "overlaps_validation"}),
        asked=frozenset({"overlaps_holdout"}),
        floor=0.2,
        clusters_are_known=False,
        metric="exact",
    )
    yield Shape("whole-histories", conversations, metric="exact")
    yield Shape("cut-histories", partial(conversations, turns=5, most=4), slack=0.3, metric="exact")
    yield Shape(
        "newest-message-only",
        partial(conversations, has_id=True, repeats_history=False),
        metric="exact",
    )
    yield Shape(
        "one-opening",
        partial(conversations, turns=4, opening="hi"),
        objections=COPIES,
        metric="exact",
    )
    yield Shape(
        "one-opening-with-ids",
        partial(conversations, turns=4, opening="hi", has_id=True),
        objections=COPIES,
        metric="exact",
        is_slow=True,
    )
    yield Shape("retries", retries, 200, objections=COPIES, metric="exact")
    yield Shape(
        "conflicting-labels", conflicts, objections=frozenset({"conflicting_answer"}), is_slow=True
    )
    yield Shape("two-models", two_models, objections=COPIES, metric="exact", is_slow=True)
    yield Shape("one-label", one_label, 165, is_slow=True)
    yield Shape("json-answers", json_answers, metric="exact")
    yield Shape("thoughts", thoughts, metric="exact", is_slow=True)
    yield Shape("tool-results", tool_results, 120, exceeds_window=True, metric="correct_name")
    yield Shape("images", images, objections=frozenset({"unsupported_content"}))
    yield Shape("languages", languages)
    yield Shape("clock-skew", skew, metric="exact")
    yield Shape("two-users-at-once", two_users_at_once, 160, objections=COPIES)
    yield Shape("people", people)
    yield Shape("personal-arguments", personal_arguments, metric="correct")
    yield Shape(
        "empty-answers", empty_answers, objections=frozenset({"empty_answer"}), is_slow=True
    )
    yield Shape("numbers", numbers, clusters_are_known=False, metric="correct", is_slow=True)
    # Without the addresses it is one request, of which one is learned.
    yield Shape(
        "lookups",
        lambda author, count: [*lookups(author, count // 2), *under(under_system)(author, count)],
        100,
        objections=frozenset({"near_duplicate"}),
        asked=frozenset({"near_duplicate"}),
        floor=0.65,
        clusters_are_known=False,
        metric="correct",
    )
    yield Shape("clock-in-tools", clock_in_tools, metric="correct")
    yield Shape("clock-in-system", clock_in_system, is_slow=True)
    yield Shape("one-id", one_id, metric="exact", is_slow=True)
    yield Shape("one-time", one_time, is_slow=True)
    yield Shape("greetings", greetings, metric="exact", is_slow=True)
    yield Shape("emojis", emojis, is_slow=True)
    yield Shape("tenants", partial(tenants, size=6), slack=0.3, is_slow=True)
    yield Shape("json-schema", json_schema, metric="exact", is_slow=True)
    yield Shape("many-labels", many_labels, 900, is_slow=True)
    yield Shape("sixty-rows", in_user, 60)
    yield Shape("sixty-thousand-rows", under(_templates), 60_000, is_slow=True)


SHAPES: dict[str, Shape] = {shape.name: shape for shape in _shapes()}
