import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from components.curate.near import duplicates, near_requests, request_columns, request_words
from components.curate.near.request_columns import NearRequest
from components.schema import Answer, Json, Message
from tests.support import logs

LONG = " ".join(f"rule {number} says so;" for number in range(300))
QUESTION = "what is the fastest way to get from the old harbour to the airport on a sunday morning"


def user(text: str) -> Message:
    return {"role": "user", "content": text}


def assistant(text: str) -> Message:
    return {"role": "assistant", "content": text}


def request(
    *turns: Message, system: str = LONG, tools: Sequence[Json] = (), answer: str = "Yes."
) -> NearRequest:
    rendered: list[Message] = [{"role": "system", "content": "..."}, *turns]
    return request_columns.read(rendered, [system], json.dumps(tools), Answer(answer))


class Place(NamedTuple):
    """The smallest ids of a request's groups."""

    cluster_id: str
    twin_id: str
    equal_id: str


def place(
    ids: Sequence[str],
    asked: Sequence[NearRequest],
    scratch: Path | None = None,
) -> list[Place]:
    columns = request_columns.columns_of(asked)
    compared = request_words.separate(columns, scratch)
    groups = near_requests.place(duplicates.by_id(ids), columns, compared, 0.8)
    firsts = ([ids[first] for first in of_group.tolist()] for of_group in groups[:3])
    return [Place(*named) for named in zip(*firsts, strict=True)]


def ties(request: NearRequest, other: NearRequest) -> tuple[bool, bool]:
    """Return whether two requests share a cluster, and whether they are twins."""
    first, second = place("ab", [request, other])
    return first.cluster_id == second.cluster_id, first.twin_id == second.twin_id


TWINS = (True, True)
TIED = (True, False)
APART = (False, False)
HISTORY = (user(QUESTION), assistant("There is a train every hour; shall I book it for you then?"))
TOOLS = (logs.tool("one"), logs.tool("two"))


@pytest.mark.parametrize(
    ("earlier", "later", "expected"),
    [
        pytest.param(
            request(user(QUESTION)), request(user(f"please: {QUESTION}?")), TWINS, id="reworded"
        ),
        pytest.param(
            request(user("set an alarm for six")),
            request(user("play some jazz")),
            APART,
            id="one-system-prompt",
        ),
        pytest.param(
            request(user("set an alarm for six"), tools=TOOLS),
            request(user("play some jazz"), tools=TOOLS),
            APART,
            id="one-list-of-tools",
        ),
        pytest.param(
            request(user(QUESTION), tools=TOOLS),
            request(user(QUESTION), tools=TOOLS[::-1]),
            TWINS,
            id="tools-in-another-order",
        ),
        pytest.param(
            request(user(QUESTION), tools=TOOLS),
            request(user(QUESTION), tools=TOOLS[:1]),
            APART,
            id="a-tool-less",
        ),
        pytest.param(
            request(user(QUESTION), system=f"{LONG} It is 10:15."),
            request(user(QUESTION), system=f"{LONG} It is 16:40."),
            TWINS,
            id="the-clock-in-the-system-prompt",
        ),
        pytest.param(
            request(user(QUESTION), system="Answer in French."),
            request(user(QUESTION), system="Reply with one number only."),
            TIED,
            id="another-system-prompt",
        ),
        pytest.param(
            request(*HISTORY), request(*HISTORY, user("yes")), TIED, id="the-next-turn-of-it"
        ),
        pytest.param(
            request(*HISTORY, user("yes")), request(*HISTORY, user("no")), TIED, id="yes-and-no"
        ),
        pytest.param(
            request(*HISTORY, user("yes")), request(*HISTORY, user("Yes")), TWINS, id="yes-and-Yes"
        ),
    ],
)
def test_near_requests_share_a_cluster_and_twins_count_once(
    earlier: NearRequest, later: NearRequest, expected: tuple[bool, bool]
):
    assert ties(earlier, later) == expected


def test_group_ids_are_the_smallest_ids_in_any_order():
    asked = [request(user(text)) for text in (QUESTION, "something else", f"{QUESTION} please")]
    forward = place(["c", "b", "a"], asked)
    backward = place(["a", "b", "c"], asked[::-1])
    assert [place.cluster_id for place in forward] == ["a", "b", "a"]
    assert backward == forward[::-1]


def test_texts_compared_in_files_give_the_same_and_leave_nothing(tmp_path: Path):
    shared = " ".join(f"word{number}" for number in range(20))
    asked = [
        request(*HISTORY[: 2 * (number % 2)], user(f"{shared} {QUESTION} {number % 7}"))
        for number in range(40)
    ]
    asked += [request(user(shared)), request(user("")), request(user("Größe? 北京"))]
    ids = [f"{number:03d}" for number in range(len(asked))]
    columns = request_columns.columns_of(asked)
    compared, in_memory = (request_words.separate(columns, where) for where in (tmp_path, None))
    for in_file, other in zip(compared[:3], in_memory[:3], strict=True):
        assert in_file.digests.tolist() == other.digests.tolist()
    assert place(ids, asked, tmp_path) == place(ids, asked)
    assert not [*tmp_path.iterdir()]


def numbered(word: str, count: int = 30) -> str:
    return " ".join(f"{word}{chr(number)}" for number in range(ord("a"), ord("a") + count))


def under(template: str, *asked: str) -> list[NearRequest]:
    """Return requests under a template, which enough others have, too."""
    others = [numbered(f"other{letter}", 12) for letter in "abcdefghij"]
    return [request(user(f"{template} {text}")) for text in [*asked, *others]]


def test_requests_equal_but_for_the_case_of_any_language_are_equal():
    rest = numbered("mot", 20)
    upper, lower, other = place(
        "abc",
        [request(user(f"{word} {rest}")) for word in ("ÉTÉ", "été", "äté")],
    )
    assert lower.twin_id == upper.twin_id == other.twin_id
    assert lower.equal_id == upper.equal_id
    assert other.equal_id != upper.equal_id


def test_requests_equal_but_for_their_templates_are_equal_in_any_language():
    template = numbered("vorlage", 26)
    asked = [
        *under(f"{template} eins", f"Größe {numbered('frage', 12)}"),
        *under(f"{template} zwei", f"größe {numbered('frage', 12)}"),
    ]
    places = place([f"{number:02d}" for number in range(len(asked))], asked)
    first, second = places[0], places[len(asked) // 2]
    assert first.equal_id == second.equal_id == "00"


@pytest.mark.parametrize(
    ("rest", "is_compared_whole"), [("…", True), ("→ —", True), ("да", False), ("東", False)]
)
def test_requests_with_only_signs_beside_their_templates_are_compared_whole(
    rest: str, is_compared_whole: bool
):
    asked = [*under(numbered("vorlage", 26), rest), *under(numbered("muster", 26), rest)]
    places = place([f"{number:02d}" for number in range(len(asked))], asked)
    differ = places[0].cluster_id != places[len(asked) // 2].cluster_id
    assert differ is is_compared_whole


INSTRUCTION = f"You read documents for a lawyer. {QUESTION} is not for you to say, nor is the law."
SUMMARISE = "Summarise this document in three sentences for a reader who has no time"


def of_documents(*documents: str) -> list[NearRequest]:
    systems = [f"{INSTRUCTION} {document}" for document in documents]
    return [request(user(SUMMARISE), system=system, answer="a " * 30) for system in systems]


def document(number: int) -> str:
    return " ".join(f"word{number}x{place}" for place in range(30))


def counts(asked: Sequence[NearRequest]) -> tuple[int, int]:
    """Return the number of clusters and of groups of twins."""
    placed = place([f"{n:03}" for n in range(len(asked))], asked)
    return len({at.cluster_id for at in placed}), len({at.twin_id for at in placed})


def test_a_question_about_many_documents_in_the_system_message_ties_none_of_them():
    asked = of_documents(*map(document, range(20)))
    assert counts(asked) == (20, 20)


def test_a_question_about_a_few_documents_ties_them_and_all_are_kept():
    asked = of_documents(*map(document, range(7)))
    assert counts(asked) == (1, 7)


def test_a_name_and_a_time_in_the_system_message_are_no_document():
    names = ("Ann Lee", "Bob Ray", "Cleo Poe", "Dan Orr", "Eve Kay")
    days = ("Monday", "Tuesday", "Friday", "Sunday")
    asked = of_documents(
        *(
            f"You talk to {name}. It is {day}, {n} May, 10:{n}."
            for n, (name, day) in enumerate((name, day) for name in names for day in days)
        )
    )
    assert counts(asked)[0] == 1


def test_one_document_at_several_times_is_one():
    times = [f"It is {10 + n}:15, day {n}." for n in range(4)]
    asked = of_documents(*(f"{time} {document(n)}" for n in range(10) for time in times))
    assert counts(asked)[0] == 10
