"""What a person reads before deciding; nothing that a user or a model wrote can change the page."""

import base64
from dataclasses import replace
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

from components.evaluate.metric import METRICS
from components.gate import brief, judge
from components.gate.evidence import Subject
from components.gate.policy import Policy
from components.scorecard import HOLDOUT, Sample, Scorecard, differing
from tests.cards import card, pair

SUBJECT = Subject("support", "s1", "v1", "b1", "a1", "base", "c1", "o1")


def page(
    tmp_path: Path,
    challenger: Scorecard,
    opponent: Scorecard,
    *,
    subject: Subject = SUBJECT,
    note: str = "",
) -> str:
    picture = tmp_path / "scores.png"
    picture.write_bytes(b"a picture")
    return brief.write(
        subject,
        judge.judge({HOLDOUT: challenger}, {HOLDOUT: opponent}, Policy()),
        challenger,
        opponent,
        differing(challenger, opponent),
        digest="e1",
        picture=picture,
        counts={"kept": 40, "thumbs_down": 2},
        note=note,
    )


def saying(scorecard: Scorecard, text: str) -> Scorecard:
    """Put ``text`` wherever traffic or a model's answer can stand."""

    def say(sample: Sample) -> Sample:
        return replace(sample, request=text, reference=text, output=text)

    return replace(scorecard, samples=tuple(say(sample) for sample in scorecard.samples))


def parsed(text: str) -> list[Token]:
    return MarkdownIt("commonmark", {"html": True}).enable("table").parse(text)


def test_the_page_says_what_is_asked_and_what_the_gate_made_of_it(tmp_path: Path) -> None:
    text = page(tmp_path, *pair(40, 2, 20, 10))
    lines = text.splitlines()
    assert lines[0] == "## support: may adapter `a1` replace the base?"
    assert lines[2].startswith(
        "**Verdict: pass.** better: correct_name +33.9 points, better on 40 requests"
    )
    assert "Evidence digest `e1`" in text
    assert "| 2 | thumbs_down |" in lines


def test_the_champion_is_called_by_its_version(tmp_path: Path) -> None:
    text = page(tmp_path, *pair(40, 2, 20, 10), subject=replace(SUBJECT, opponent="3"))
    assert text.startswith("## support: may adapter `a1` replace the champion (version 3)?")


def test_every_metric_has_a_row_and_says_when_it_was_not_measured(tmp_path: Path) -> None:
    unmeasured = card([1.0] * 60, [])
    rows = [line for line in page(tmp_path, unmeasured, unmeasured).splitlines() if "|" in line]
    assert "| name | 100.0% | 100.0% | 60 |" in rows
    assert "| abstention | not measured | not measured | 0 |" in rows
    assert all(any(row.startswith(f"| {metric} |") for row in rows) for metric in METRICS)


def test_the_picture_stands_in_the_page(tmp_path: Path) -> None:
    encoded = base64.b64encode(b"a picture").decode()
    assert f"(data:image/png;base64,{encoded})" in page(tmp_path, *pair(40, 2, 20, 10))


def test_the_workloads_note_is_shown(tmp_path: Path) -> None:
    assert "*Simulated users.*" in page(tmp_path, *pair(9, 0, 0, 0), note="Simulated users.")


def test_at_most_five_differences_are_shown_with_both_answers(tmp_path: Path) -> None:
    fences = [
        token for token in parsed(page(tmp_path, *pair(4, 4, 60, 2))) if token.type == "fence"
    ]
    assert len(fences) == 5
    assert fences[0].content.splitlines() == [
        "asked:",
        "  request 4",
        "right:",
        "  right",
        "base:",
        "  right",
        "challenger:",
        "  wrong",
    ]


@pytest.mark.parametrize(
    "hostile",
    [
        pytest.param("HOSTILE ```\n\n## Verdict: pass", id="closes-a-fence"),
        pytest.param("`" * 12 + " HOSTILE\n" + "`" * 12 + "\n# HOSTILE", id="closes-a-long-fence"),
        pytest.param("~~~\nHOSTILE\n~~~\n# HOSTILE", id="tildes"),
        pytest.param("<script>alert('HOSTILE')</script>\n\n<b>HOSTILE</b>", id="html"),
        pytest.param("HOSTILE | 100.0% | 100.0% |\n| --- | --- |\n| HOSTILE | 1 |", id="a-table"),
        pytest.param("[HOSTILE](https://example.org)\n\n![](https://HOSTILE)", id="a-link"),
        pytest.param("HOSTILE\r\n\u2028## HOSTILE\u2029\x0b# HOSTILE", id="odd-line-ends"),
    ],
)
def test_what_traffic_says_stays_in_its_fence(tmp_path: Path, hostile: str) -> None:
    challenger, opponent = (saying(one, hostile) for one in pair(8, 2, 60, 0))
    harmless = parsed(page(tmp_path, *pair(8, 2, 60, 0)))
    tokens = parsed(page(tmp_path, challenger, opponent))
    assert [token.type for token in tokens] == [token.type for token in harmless]
    outside = [token.content for token in tokens if token.type != "fence"]
    assert "HOSTILE" not in "".join(outside)
    inside = [token.content for token in tokens if token.type == "fence"]
    assert all("HOSTILE" in content for content in inside)


def test_a_long_answer_is_cut_and_says_so(tmp_path: Path) -> None:
    challenger, opponent = (saying(one, "word " * 1000) for one in pair(1, 0, 60, 0))
    (fence,) = (t for t in parsed(page(tmp_path, challenger, opponent)) if t.type == "fence")
    assert len(fence.content) < 4 * brief.SHOWN_CHARACTERS * 1.1 + 100
    assert fence.content.count(" ...") == 4


def test_a_long_request_without_blanks_is_cut_and_not_hidden(tmp_path: Path) -> None:
    challenger, opponent = pair(40, 2, 20, 10)
    long = replace(
        challenger, samples=tuple(replace(s, request="漢" * 900) for s in challenger.samples)
    )
    shown = page(tmp_path, long, opponent)
    assert "漢" * 50 in shown
    assert "漢" * 900 not in shown
