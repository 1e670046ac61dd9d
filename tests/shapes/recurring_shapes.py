"""Shapes of logs in which people or questions come back, as they do in production.

``SHAPES`` has them all: recurring questions that several people ask, popular ones, one person with
much of the log, and fixed questions about documents in the system message.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

from components.schema import Json
from tests.shapes.log_shapes import (
    BY_CONVERSATION,
    COPIES,
    TEMPLATE,
    Author,
    Logged,
    Shape,
    system,
    user,
)
from tests.support import logs

BY_USER: dict[str, Json] = {"split_by": "user"}
CANNED = (
    "Summarise this document.",
    "What is this document about?",
    "Which dates does it name?",
    "Who has to do something, and by when?",
    "Write a title for this document of at most ten words, without a full stop at its end.",
    "Translate the first paragraph into plain language.",
    "List the open questions.",
    "Is anything urgent in it?",
)


MANY = 5
"""A question that more people ask is nobody's."""


def recurring(
    author: Author, count: int, *, people: int, again: float, has_people: bool = True
) -> list[Logged]:
    """Write conversations of one to three requests, each of one of some people.

    With the chance ``again`` a request is one that was asked before, by anybody.
    """
    chance, lines, pool = author.chance, list[Logged](), list[tuple[str, str]]()
    while len(lines) < count:
        talk, who = f"talk {len(lines)}", f"person {chance.randrange(people)}"
        for _ in range(chance.randint(1, 3)):
            if not pool or chance.random() >= again:
                pool.append((author.words(8), author.label()))
                asked = pool[-1]
            else:
                asked = chance.choice(pool)
            lines.append(_ask(author, asked, who if has_people else None, talk))
    return _clustered(lines)


def popular(author: Author, count: int, *, people: int, questions: int) -> list[Logged]:
    """Write requests of some questions, the k-th most popular with a share of about 1 / k."""
    pool = [(author.words(8), author.label()) for _ in range(questions)]
    weights = [1 / (place + 1) for place in range(questions)]
    asked = author.chance.choices(pool, weights, k=count)
    return _clustered(
        [_ask(author, one, f"person {author.chance.randrange(people)}", None) for one in asked]
    )


def _ask(author: Author, asked: tuple[str, str], who: str | None, talk: str | None) -> Logged:
    question, label = asked
    return author.log(
        [*system(TEMPLATE), *user(question)],
        label,
        asked=question,
        request=question,
        conversation=question,
        cluster=who or talk,
        user_id=who,
        conversation_id=talk,
    )


def _clustered(lines: Sequence[Logged]) -> list[Logged]:
    """Take each question that many ask out of their clusters."""
    askers: dict[str, set[str]] = defaultdict(set)
    for one in lines:
        askers[one.request].add(one.cluster)
    return [
        replace(one, cluster=one.request) if len(askers[one.request]) > MANY else one
        for one in lines
    ]


def heavy_user(author: Author, count: int, *, share: float) -> list[Logged]:
    """Write different questions, a share of them by one person, the others by one each."""
    lines: list[Logged] = []
    for number in range(count):
        question = author.words(9)
        who = "heavy" if author.chance.random() < share else f"person {number}"
        lines.append(
            author.log(
                [*system(TEMPLATE), *user(question)],
                author.label(),
                asked=question,
                cluster=who,
                user_id=who,
                conversation_id=f"talk {number}",
            )
        )
    return lines


def documents_in_system(
    author: Author,
    count: int,
    *,
    questions: tuple[str, ...] = CANNED[:1],
    has_talks: bool = False,
    words: int = 120,
) -> list[Logged]:
    """Write fixed questions, each about another document, which is in the system message."""
    lines: list[Logged] = []
    for number in range(count):
        question, text = author.chance.choice(questions), author.words(words)
        talk = f"talk {number}" if has_talks else None
        messages = [*system(f"{TEMPLATE} {text}"), *user(question)]
        answer = author.words(15)
        lines.append(author.log(messages, answer, asked=f"{text} {question}", conversation_id=talk))
    return lines


def facts_in_system(
    author: Author, count: int, *, customers: int = 40, questions: int = 20, times: int = 1
) -> list[Logged]:
    """Write each of some questions about each of some customers, whose facts the system has.

    Each is asked so many times, with the time before the facts if it is more than one.
    """
    asked = [author.words(author.chance.randint(5, 14)) for _ in range(questions)]
    facts = [_facts(author) for _ in range(customers)]
    pairs = [(fact, question) for fact in facts for question in asked]
    lines: list[Logged] = []
    for fact, question in author.chance.sample(pairs, count // times):
        for _ in range(times):
            clock = f"It is {author.words(1)}, {author.chance.randrange(10**4)}. "
            text = f"{TEMPLATE} {clock if times > 1 else ''}{fact}"
            messages = [*system(text), *user(question)]
            name = f"{fact} {question}"
            answer = author.words(12)
            lines.append(author.log(messages, answer, asked=name, request=name, conversation=name))
    author.chance.shuffle(lines)
    return lines


def voters(author: Author, count: int, *, concentration: float = 0.05) -> list[Logged]:
    """Write three requests in a row of each person, who votes on all as they tend to."""
    chance, lines = author.chance, list[Logged]()
    for number in range(count // 3):
        tendency = chance.betavariate(0.2 * concentration, 0.8 * concentration)
        for _ in range(3):
            question, is_down = author.words(9), chance.random() < tendency
            line = author.log([*system(TEMPLATE), *user(question)], author.label(), asked=question)
            lines.append(line.judged("thumb", "down" if is_down else "up", f"person {number}"))
    return lines


def wrong_systematically(author: Author, count: int, *, corrected: float = 0.3) -> list[Logged]:
    """Write questions of which production takes one topic for another, which some correct."""
    lines: list[Logged] = []
    for number in range(count):
        question, label = author.words(9), author.label()
        answer = "cards" if label == "rates" else label
        line = author.log([*system(TEMPLATE), *user(question)], answer, asked=question)
        if answer != label and author.chance.random() < corrected:
            line = line.judged("correction", logs.say(label), f"person {number}")
        lines.append(line)
    return lines


def _facts(author: Author) -> str:
    name, number = author.words(2).title(), author.chance.randrange(10**6)
    return (
        f"Customer: {name}. Number: {number}. City: {author.words(1)}. Plan: {author.words(2)}. "
        f"Since: {author.words(1)} {author.chance.randint(2001, 2025)}. Open orders: "
        f"{author.words(6)}. Last complaint: {author.words(8)}. Topic: {author.label()}."
    )


def _shapes() -> Iterator[Shape]:
    chained = {
        "recurring": (partial(recurring, people=90, again=0.25), 200),
        "recurring-39": (partial(recurring, people=900, again=0.25), 2000),
        "recurring-33": (partial(recurring, people=900, again=0.2), 2000),
        "recurring-nameless": (partial(recurring, people=900, again=0.25, has_people=False), 2000),
        "recurring-of-2000": (partial(recurring, people=2000, again=0.2), 2000),
        "popular": (partial(popular, people=900, questions=600), 4000),
    }
    for name, (write, lines) in chained.items():
        yield Shape(name, write, lines, BY_CONVERSATION, COPIES, slack=0.3, is_slow=lines > 200)
    write = partial(recurring, people=900, again=0.25)
    yield Shape("recurring-by-user", write, 2000, BY_USER, COPIES, slack=0.3, is_slow=True)
    for percent in (10, 30, 36):
        yield Shape(
            f"one-user-of-{percent}-percent",
            partial(heavy_user, share=percent / 100),
            1000,
            BY_CONVERSATION,
            is_slow=True,
        )
    for name, (write, lines) in {
        "one-question": (documents_in_system, 390),
        "one-question-with-ids": (partial(documents_in_system, has_talks=True), 390),
        "eight-questions": (partial(documents_in_system, questions=CANNED), 320),
        "facts": (facts_in_system, 320),
    }.items():
        yield Shape(f"system-{name}", write, lines, metric="exact", is_slow=name != "one-question")
    yield Shape("voters", voters, objections=frozenset({"thumbs_down"}))
    yield Shape("wrong-systematically", wrong_systematically)
    yield Shape(
        "system-facts-and-time",
        partial(facts_in_system, times=2),
        800,
        objections=COPIES,
        asked=frozenset({"near_duplicate"}),
        metric="exact",
        is_slow=True,
    )


SHAPES: dict[str, Shape] = {shape.name: shape for shape in _shapes()}
