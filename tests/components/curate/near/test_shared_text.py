"""Text shared by many requests is ignored at any position."""

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import cache
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.curate import curate_workload, judgement_columns, kept_files, row_judgement
from components.curate.judged_rows import JudgedPart, JudgedRows
from components.curate.near import hashed_words, shared_text
from components.curate.near.shared_text import LEAST, STEADY, RightAnswers
from components.curate.near.text_words import TextWords
from components.curate.near.word_runs import MANY, RUN
from components.curate.row_judgement import RowJudgement
from components.curate.settings import Rules
from components.curate.split import SIDES, Side
from components.schema import Json
from tests.support import curated_rows, logs, placing, small_disk
from tests.support.cases import cases

TEMPLATE = (
    "You are the assistant of a bank and read one message of a customer. Decide which of the bank's"
    " topics it is about, and answer with the name of that topic alone, in lower case, without any"
    " explanation. Never translate anything and never greet the customer. If no topic fits, say"
    " other. This is what the customer wrote to us today:"
)
AFTERWARDS = (
    "Answer with the topic only, and keep in mind that a wrong one costs the customer time."
)
OTHERS = (
    "Read the text that follows and tell us in one word what the writer wants us to do about it:",
    "Ordne die folgende Anfrage genau einem Thema zu und antworte nur mit dem Namen des Themas:",
    "请阅读下面的客户信息并判断客户的意图只回答意图的名称不要解释也不要翻译客户信息如下",
)
EXAMPLES = "Message: I lost my card. Topic: cards. Message: send money to Ann, please. Topic: pay."
WORDS = [f"{start}{end}" for start in "bdfgklmnprst" for end in ("ala", "emi", "ono", "uru", "ix")]
TOPICS = ("cards", "transfers", "rates", "branches", "other")

Write = Callable[[int, str], list[Json]]
"""Returns the messages that ask a question, by its number."""


def said(*texts: str) -> list[Json]:
    return [{"role": "user", "content": text} for text in texts]


def under_system(_: int, question: str) -> list[Json]:
    return [{"role": "system", "content": TEMPLATE}, *said(question)]


def with_variables(number: int, question: str) -> list[Json]:
    name = f"{WORDS[number % 47]} {WORDS[number % 59]}"
    head = f"Customer {name}, number {number * 7919 % 10_000}, wrote at 10:{number % 60}."
    return said(f"{head} {TEMPLATE} {question} {AFTERWARDS}")


WRITTEN: dict[str, Write] = {
    "before": lambda _, question: said(f"{TEMPLATE} {question}"),
    "afterwards": lambda _, question: said(f"{question}\n\n{TEMPLATE}"),
    "around": lambda _, question: said(f"{TEMPLATE} {question}\n{AFTERWARDS}"),
    "with-variables": with_variables,
    "in-both": lambda n, question: [*under_system(n, f"{OTHERS[0]} {question}")],
    "with-examples": lambda _, question: said(f"{TEMPLATE} {EXAMPLES} Message: {question} Topic:"),
    "examples-as-turns": lambda _, question: [
        *said(f"{TEMPLATE} I lost my card."),
        {"role": "assistant", "content": "cards"},
        *said(question),
    ],
    "several": lambda n, question: said(f"{(TEMPLATE, *OTHERS)[n % 4]} {question}"),
    "no-spaces": lambda _, question: said(f"{OTHERS[2] * 2} {question}"),
}


def questions(count: int, words: int = 8) -> list[str]:
    """Return different random questions."""
    chance = random.Random(count)
    return [" ".join(chance.sample(WORDS, words)) for _ in range(count)]


RULES = Rules(split_by="conversation", max_prompt_chars=100_000)


class Compared(NamedTuple):
    """What curation made of an accepted row; ``cluster`` and ``twin`` are numbers of groups."""

    interaction_id: str
    objection: str | None
    side: Side
    cluster: int
    twin: int
    answer_name: str


def judge(
    requests: Sequence[list[Json]], answers: Sequence[str] = TOPICS, rules: Rules | None = None
) -> list[Compared]:
    """Judge requests like curation, up to SQL's choice among twins."""
    rules = rules or RULES
    return compare(judge_alone(requests, answers, rules), rules)


def judge_alone(
    requests: Sequence[list[Json]], answers: Sequence[str] = TOPICS, rules: Rules = RULES
) -> list[RowJudgement]:
    """Judge each request by itself."""
    return [
        row_judgement.judge(
            replace(
                curated_rows.row(
                    messages=messages, tools=[], message=logs.say(answers[n % len(answers)])
                ),
                interaction_id=f"{n:05d}",
                example_id=f"e{n:05d}",
                logged_at=logs.NOW + timedelta(minutes=n),
            ),
            rules,
        )
        for n, messages in enumerate(requests)
    ]


def compare(judged: Sequence[RowJudgement], rules: Rules = RULES) -> list[Compared]:
    """Compare judged requests with each other."""
    answer_names = {row.interaction_id: row.request.answer_name for row in judged if row.request}
    with TemporaryDirectory() as folder:
        path = kept_files.write(Path(folder), judgement_columns.table_of(judged))
        part = JudgedPart(path, np.ones(len(judged), np.bool_))
        rows = JudgedRows("w", [part], len(judged), 0)
        placed = curate_workload.place(rows, placing.settled(), rules, Path(folder))
        cleaned = curate_workload.clean(placed, rules)
    ids = rows.ids.to_pylist()
    return [
        Compared(
            interaction_id,
            cleaned.objections[number],
            SIDES[cleaned.placements.sides[number]],
            cleaned.relations.clusters[number],
            cleaned.twins[number],
            answer_names[interaction_id],
        )
        for number, interaction_id in enumerate(ids)
    ]


def kept(judged: Sequence[Compared]) -> int:
    """Return the number of kept rows if one of the twins with one answer is kept."""
    free = [row for row in judged if row.objection is None]
    return len({(row.twin, row.answer_name) for row in free})


@cache
def kept_under_system(count: int) -> int:
    asked = questions(count)
    return kept(judge([under_system(n, question) for n, question in enumerate(asked)]))


@pytest.mark.parametrize("count", [40, 150])
@pytest.mark.parametrize("write", WRITTEN.values(), ids=WRITTEN)
def test_under_a_template_as_much_is_kept_as_under_a_system_prompt(write: Write, count: int):
    judged = judge([write(n, question) for n, question in enumerate(questions(count))])
    assert kept(judged) >= 0.95 * kept_under_system(count)
    assert max(Counter(row.cluster for row in judged).values()) <= 3


def test_questions_of_one_word_under_a_template_are_different_requests():
    assert kept(judge([said(f"{TEMPLATE} {word}") for word in WORDS], answers=["cards"])) == 60


@pytest.mark.parametrize("asked", [3, 12], ids=["three-questions", "twelve-questions"])
@pytest.mark.parametrize("apart", [False, True], ids=["one-message", "two-messages"])
def test_questions_on_one_document_are_all_kept(asked: int, apart: bool):
    texts = [" ".join(random.Random(n).choices(WORDS, k=3000)) for n in range(2)]
    at_length = [" ".join(random.Random(n).choices(WORDS, k=30)) for n in range(7)]
    requests = [
        said(text, question) if apart else said(f"{text}\n\n{question}")
        for text in texts
        for question in questions(asked, 10)
    ]
    assert kept(judge(requests, at_length)) == len(requests)


@pytest.mark.parametrize("template", ["", TEMPLATE], ids=["bare", "under-a-template"])
def test_a_request_that_is_sent_again_and_again_is_one(template: str):
    again = " ".join(questions(1, 20))
    others = [said(f"{template} {question}") for question in questions(30)]
    retries = [said(f"{template} {again}") for _ in range(40)]
    judged = judge([*others, *retries], answers=["cards"])
    assert len({row.twin for row in judged[30:]}) == 1
    assert kept(judged[:30]) >= 29


def test_retries_with_another_time_in_them_are_one_unless_the_numbers_are_what_is_asked():
    again = " ".join(questions(1, 60))
    retries = [said(f"2026-01-{n % 28 + 1:02d} 10:{n:02d} {again}") for n in range(40)]
    assert len({row.twin for row in judge(retries, answers=["cards"])}) == 1
    readings = [said(f"{TEMPLATE} {n * 37 % 101} {n * 53 % 97} {n * 71 % 89}") for n in range(80)]
    assert kept(judge(readings)) >= 76


def test_full_histories_of_a_conversation_share_a_cluster():
    turns = questions(30, 12)
    talks: list[list[Json]] = [
        [*under_system(n, turns[0]), *said(*turns[1 : n + 1])] for n in range(30)
    ]
    assert len({row.cluster for row in judge(talks)[12:]}) == 1


def test_held_out_requests_under_a_template_are_not_trained_on():
    asked = questions(120, 30)
    again = [
        " ".join([*question.split()[:20], *WORDS[n % 40 : n % 40 + 10]])
        for n, question in enumerate(asked)
    ]
    judged = judge([said(f"{TEMPLATE} {question}") for question in [*asked, *again]])
    side = {row.interaction_id: row.side for row in judged}
    parted = [
        (first, second)
        for first, second in zip(judged[:120], judged[120:], strict=True)
        if side[first.interaction_id] != side[second.interaction_id]
    ]
    assert parted
    overlaps = {"overlaps_holdout", "overlaps_validation"}
    assert all(overlaps & {row.objection, other.objection} for row, other in parted)
    assert sum(row.objection is not None for row in judged) == len(parted)


@pytest.mark.parametrize(
    "write",
    [
        pytest.param(WRITTEN["around"], id="one", marks=pytest.mark.slow),
        pytest.param(WRITTEN["several"], id="several"),
    ],
)
@pytest.mark.parametrize(
    "sizes",
    [
        pytest.param(range(40, 61, 2), id="40"),
        pytest.param(range(400, 421, 10), id="400", marks=pytest.mark.slow),
    ],
)
def test_one_more_row_changes_few_verdicts(write: Write, sizes: range):
    asked = [write(n, question) for n, question in enumerate(questions(430))]
    judged = judge_alone(asked[: sizes[-1]])
    counts = [Counter(row.objection for row in compare(judged[:size])) for size in sizes]
    for earlier, later in pairwise(counts):
        assert (later - earlier).total() + (earlier - later).total() <= sizes.step + 4
    assert all(verdicts[None] >= 0.95 * verdicts.total() for verdicts in counts)


def test_a_full_disk_is_an_error_and_not_the_end_of_the_process(tmp_path: Path):
    with (
        small_disk.mounted(tmp_path / "disk", "256k") as scratch,
        pytest.raises(OSError, match="No space left"),
    ):
        hashed_words.spilled_zeros(1 << 20, np.bool_, scratch)


@given(st.randoms(use_true_random=False))
@cases(50)
def test_what_is_cut_matches_a_count_by_hand(chance: random.Random):
    opening, middle, end = (" ".join(chance.choices("abcdefghijkl", k=10)) for _ in range(3))
    parts = (f"{opening} {middle}", f"{middle} {end}", end, "x", "y1")
    often = chance.choices([1, 2, 8], k=len(parts))
    several = chance.choice([1, 2])
    written = [chance.choices(parts, often, k=several) for _ in range(80)]
    for some in written[:20]:
        some += chance.choices("mnopqrst", k=chance.randrange(150))
    for some in written[20:]:
        some.append(str(chance.randrange(9)))
    texts = sorted({" ".join(some) for some in written})
    answers = [chance.randrange(2) for _ in texts]
    assert marked(texts, answers) == by_hand(texts, answers)


@pytest.mark.parametrize("count", [7, 8, 9])
def test_a_template_is_cut_in_all_its_texts_if_there_are_eight(count: int):
    others = questions(200, 20)
    under = [f"{' '.join(WORDS[:20])} {question}" for question in questions(9, 9)]
    under.append(f"{under[0]} 7")  # a text but for a number, which does not count
    texts = [*under[:count], *others, under[-1]]
    answers = [0] * len(texts)
    are_cut = marked(texts, answers)
    assert are_cut == by_hand(texts, answers)
    assert [any(marks) for marks in are_cut[:count]] == [count >= MANY] * count


def marked(texts: Sequence[str], answers: Sequence[int]) -> list[list[bool]]:
    words, places = TextWords.of_column(pa.array(texts, pa.large_string()))
    right = RightAnswers(places, np.array(answers, np.int64))
    shared = shared_text.find_shared(words, right)
    return [
        shared.are_shared[shared.bounds[place] : shared.bounds[place + 1]].tolist()
        for place in places.tolist()
    ]


def by_hand(texts: Sequence[str], answers: Sequence[int]) -> list[list[bool]]:
    worded = [text.split() for text in texts]
    counts = Counter(run for words in counted(texts, answers) for run in {*runs(words)})
    return [cut(words, {run: n for run, n in counts.items() if n >= MANY}) for words in worded]


def runs(words: Sequence[str]) -> list[tuple[str, ...]]:
    return [tuple(words[at : at + RUN]) for at in range(len(words) - RUN + 1)]


def counted(texts: Sequence[str], answers: Sequence[int]) -> list[list[str]]:
    """Return one text of those of the same words but for numbers, all of them if answers differ."""
    named: dict[tuple[str, ...], list[tuple[str, int]]] = defaultdict(list)
    for text, answer in zip(texts, answers, strict=True):
        name = tuple(sorted(word for word in text.split() if word.isalpha()))
        named[name].append((text, answer))
    return [
        text.split()
        for of_name in named.values()
        for text, _ in (
            of_name if len({answer for _, answer in of_name}) > 1 else [min(of_name, key=place)]
        )
    ]


def place(answered: tuple[str, int]) -> tuple[int, int]:
    digest = hashed_words.digest(answered[0].encode())
    return int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")


def cut(words: list[str], common: Mapping[tuple[str, ...], int]) -> list[bool]:
    counts = [common.get(run, 0) for run in runs(words)]
    covered = {
        at + step
        for at, count in enumerate(counts)
        if count and count >= STEADY * max(counts[max(0, at - RUN + 1) : at + RUN])
        for step in range(RUN)
    }
    is_cut = len(covered) >= LEAST * len(words)
    return [is_cut and at in covered for at in range(len(words))]
