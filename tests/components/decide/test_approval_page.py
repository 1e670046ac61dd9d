"""The header of the approval form; texts that people wrote can't change the page."""

from collections.abc import Sequence

import pytest
from markdown_it import MarkdownIt

from components.decide import decision_log, record_answer
from components.decide.chain import Link
from components.store.warehouse import Connection
from tests.support import chains
from tests.support.chains import event

HOSTILE = [
    "<img src=x onerror=alert(1)>",
    "`</code><script>alert(1)</script>`",
    "[click](javascript:alert(1))",
    "| a | b |\n| - | - |\n\n# heading",
    "{{ 7*7 }} {% raw %} ${7*7} $(id)",
    "![x](https://example.com/x.png)",
]


def links(con: Connection, *events: decision_log.LogEvent) -> list[Link]:
    chains.append(con, *events)
    return decision_log.links(con)


def write(
    answered: Sequence[Link] = (),
    approved: Sequence[Link] = (),
    earlier: Sequence[Link] = (),
    required: int = 1,
) -> str:
    return record_answer.write(
        answered, approved, earlier, {"the report": "http://h/#/r"}, required=required
    )


def test_the_first_question_has_only_links() -> None:
    assert write() == "[the report](http://h/#/r)\n\n"


def test_a_refused_answer_is_shown_with_its_reason_and_counted(con: Connection) -> None:
    unlisted = event("refused", "eve", reason="unlisted")
    refused = links(con, unlisted, event("refused", "ada", reason="code_wrong"))
    assert "The answer of `eve` was not taken: the workload's file lists" in write(refused[:1])
    page = write(refused)
    assert "The answer of `ada` was not taken: the one-time code is wrong." in page
    assert "2 answers were not taken so far" in page


def test_earlier_approvals_are_shown(con: Connection) -> None:
    approved = links(con, event(comment="enough requests"))
    page = write(approved, approved, required=2)
    assert "**Approved by 1 of 2:** another person has to." in page
    assert "- `ada` on 2026-01-01 12:30 UTC: `enough requests`" in page


def test_earlier_decisions_of_the_workload_are_shown_newest_first(con: Connection) -> None:
    earlier = links(con, event("reject", "bob", reason="cost"), event(evidence="e2", hours=5))
    rows = [row for row in write(earlier=earlier).splitlines() if row.startswith("| 2026")]
    assert rows == [
        "| 2026-01-01 17:30 UTC | approve | `ada` | `e2` | `good` |",
        "| 2026-01-01 12:30 UTC | reject: cost | `bob` | `e1` | `good` |",
    ]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_persons_text_is_escaped(con: Connection, text: str) -> None:
    answers = links(con, event("refused", text, comment=text, reason="blame"), event(comment=text))
    page = write(answers[:1], answers[1:], answers, required=2)
    tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(page)
    inline = [token for token in tokens for token in token.children or ()]
    kinds = {token.type for token in [*tokens, *inline]}
    assert not kinds & {"html_block", "html_inline", "image", "heading_open", "fence"}
    addresses = [token.attrGet("href") for token in inline if token.type == "link_open"]
    assert addresses == ["http://h/#/r"]
    assert sum(token.type == "table_open" for token in tokens) == 1


def test_the_data_card_is_collapsed_without_its_yaml_header() -> None:
    text = (
        "---\nlicense: other\n---\n# support: snapshot s1\n\n![sides](sides.png)\n\n| a |\n| - |\n"
    )
    page = record_answer.card(text)
    assert "license" not in page
    assert "sides.png" not in page
    assert "<details>" in page
    assert "# support: snapshot s1" in page
    assert record_answer.card("") == ""
