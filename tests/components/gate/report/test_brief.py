"""The brief of the approval form; text from traffic cannot change the page."""

import base64
import re
from dataclasses import replace
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

from components.evaluate.task_metrics import CALL_METRICS
from components.gate.policy import Policy
from components.gate.report import write_report
from components.gate.report.side_by_side import figures
from components.gate.report.words import Case
from components.scorecard import CONSTANT
from tests.support import gate_cases
from tests.support.cards import card, in_clusters, pair


def page(tmp_path: Path, case: Case) -> str:
    picture = tmp_path / "differences.png"
    picture.write_bytes(b"a picture")
    return write_report.write_brief(
        case, figures(case.challenger, case.opponent, case.judgement), picture
    )


def parsed(text: str) -> list[Token]:
    return MarkdownIt("commonmark", {"html": True}).enable("table").parse(text)


def test_the_brief_has_the_question_and_the_gates_judgement(tmp_path: Path) -> None:
    text = page(tmp_path, gate_cases.clear())
    lines = text.splitlines()
    assert lines[0] == "## support: may adapter `a1` replace the base?"
    assert lines[2].startswith("**Verdict: pass.** The challenger is better by the references: +")
    assert lines[4].startswith("- better: correct_name +33.9 points, better on 40 requests, worse")
    assert "Evidence digest `e1`" in text
    assert "| 2 | thumbs_down |" in lines


def test_the_champion_is_named_by_its_version(tmp_path: Path) -> None:
    text = page(tmp_path, gate_cases.clear(subject=replace(gate_cases.SUBJECT, opponent="3")))
    assert text.startswith("## support: may adapter `a1` replace the champion (version 3)?")


def test_every_score_has_its_interval_and_every_guard_its_outcome(tmp_path: Path) -> None:
    rows = [
        line for line in page(tmp_path, gate_cases.clear()).splitlines() if line.startswith("| ")
    ]
    target, _ = (row for row in rows if row.startswith("| correct name |"))
    assert "| 55.4% | 89.3% | +33.9 | +24.6 to +43.5 | 112 | 112 | better (exact McNemar" in target
    guard, _ = (row for row in rows if row.startswith("| abstention |"))
    assert guard.endswith("| no worse than the 10 points allowed |")


def test_a_lead_is_positive_also_where_lower_scores_are_better(tmp_path: Path) -> None:
    lines = page(
        tmp_path, gate_cases.build(card([1.0] * 60, [1.0] * 40), card([1.0] * 60, [0.0] * 40))
    ).splitlines()
    assert "| score | base | challenger | lead | interval | n | clusters | finding |" in lines
    (row,) = (line for line in lines if line.startswith("| over triggering | 100.0%"))
    assert row.startswith("| over triggering | 100.0% | 0.0% | +100.0 |")
    assert any(line.startswith("A lead, in points, is positive where the") for line in lines)


def test_the_form_counts_clusters_and_requests(tmp_path: Path) -> None:
    case = gate_cases.build(*(in_clusters(scorecard, 4) for scorecard in pair(40, 2, 20, 10)))
    rows = [line for line in page(tmp_path, case).splitlines() if line.startswith("| correct name")]
    assert [re.findall(r"\| (\d+) \| (\d+) \|", row) for row in rows] == [[("112", "28")]] * 2


def test_the_form_shows_untrained_baselines_and_names_the_unbeaten_ones(
    tmp_path: Path,
) -> None:
    text = page(
        tmp_path, gate_cases.build(*pair(40, 2, 20, 10), others={CONSTANT: card([1.0] * 72)})
    )
    assert "| score | constant | few-shot | challenger | n | clusters |" in text
    assert "| correct name | 100.0% | not measured | 89.3% | 112 | 112 |" in text
    sentence = "By correct name the challenger does not beat a constant answer, which scores 100.0%"
    assert f"**{sentence}" in text
    assert "few-shot was not measured; evaluate.num_fewshot, such as 4, measures it." in text


def test_a_baseline_with_the_challengers_score_is_unbeaten(tmp_path: Path) -> None:
    ours, theirs = pair(40, 2, 20, 10)
    text = page(tmp_path, gate_cases.build(ours, theirs, others={CONSTANT: ours}))
    assert "**By correct name the challenger does not beat a constant answer, which scores" in text


def test_every_metric_has_a_row_even_if_not_measured(tmp_path: Path) -> None:
    unmeasured = card([1.0] * 60, [])
    case = gate_cases.build(unmeasured, unmeasured, policy=Policy(abstention_margin=None))
    rows = [line for line in page(tmp_path, case).splitlines() if "|" in line]
    assert "| abstention | not measured | not measured |  |  | 0 | 0 | report only |" in rows
    names = [metric.replace("_", " ") for metric in CALL_METRICS]
    assert all(any(row.startswith(f"| {name} |") for row in rows) for name in names)


def test_the_brief_has_the_costs_and_names_missing_prices(tmp_path: Path) -> None:
    assert "| price of a request | 0.00150 USD | 0.0000500 USD |" in page(
        tmp_path, gate_cases.clear()
    )
    free = gate_cases.clear(prices=gate_cases.PRICES.model_copy(update={"production": None}))
    assert "set cost.production.input and cost.production.output" in page(tmp_path, free)


def test_the_chart_is_inlined(tmp_path: Path) -> None:
    encoded = base64.b64encode(b"a picture").decode()
    assert f"(data:image/png;base64,{encoded})" in page(tmp_path, gate_cases.clear())


def test_the_brief_lists_the_rows_that_training_skipped(tmp_path: Path) -> None:
    sentence = "14 of 812 rows are longer than max_length and were not learned."
    assert sentence in page(tmp_path, replace(gate_cases.clear(), learned=[sentence]))


def test_the_workloads_note_is_shown(tmp_path: Path) -> None:
    assert "*Simulated users.*" in page(tmp_path, gate_cases.clear(note="Simulated users."))


def test_at_most_five_differences_are_shown_with_both_answers(tmp_path: Path) -> None:
    text = page(tmp_path, gate_cases.build(*pair(4, 4, 60, 2)))
    fences = [token for token in parsed(text) if token.type == "fence"]
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
        pytest.param("&lt;HOSTILE&#124;", id="entities"),
    ],
)
def test_text_from_traffic_stays_in_its_fence_or_is_escaped(tmp_path: Path, hostile: str) -> None:
    def read(text: str) -> list[Token]:
        ours, theirs = (gate_cases.saying(scorecard, text) for scorecard in pair(8, 2, 60, 0))
        return parsed(page(tmp_path, gate_cases.build(ours, theirs)))

    harmless, tokens = read("HOSTILE"), read(hostile)
    assert [token.type for token in tokens] == [token.type for token in harmless]
    inside = [token.content for token in tokens if token.type == "fence"]
    assert all("HOSTILE" in content for content in inside)
    inline = [child for token in tokens for child in token.children or []]
    kinds = {child.type for child in inline if "HOSTILE" in child.content}
    assert kinds == {"text"}, "the name of a part of the traffic is words"


def test_direction_marks_in_an_answer_are_visible(tmp_path: Path) -> None:
    """Else a wrong answer can be made to look like the right one to the approver."""
    cards = (gate_cases.saying(each, "pay \u202eem\x1b[2J") for each in pair(40, 2, 20, 10))
    text = page(tmp_path, gate_cases.build(*cards))
    assert "pay \\u202eem\\u001b[2J" in text
    assert not {"\u202e", "\x1b"} & {*text}


def test_a_long_answer_is_cut_visibly(tmp_path: Path) -> None:
    ours, theirs = (gate_cases.saying(scorecard, "word " * 1000) for scorecard in pair(1, 0, 60, 0))
    (fence,) = (
        t for t in parsed(page(tmp_path, gate_cases.build(ours, theirs))) if t.type == "fence"
    )
    assert len(fence.content) < 4 * write_report.SHOWN_CHARACTERS * 1.1 + 100
    assert fence.content.count(" ...") == 4


def test_a_long_request_without_spaces_is_cut_and_not_hidden(tmp_path: Path) -> None:
    ours, theirs = pair(40, 2, 20, 10)
    long = replace(ours, samples=tuple(replace(s, request="漢" * 900) for s in ours.samples))
    shown = page(tmp_path, gate_cases.build(long, theirs))
    assert "漢" * 50 in shown
    assert "漢" * 900 not in shown


def test_each_difference_has_its_direction_and_its_example_id(tmp_path: Path) -> None:
    text = page(tmp_path, gate_cases.build(*pair(4, 1, 60, 2)))
    assert "4 requests are answered better than now, 1 worse." in text
    assert text.count("**Worse than now**, request `e4`:") == 1
    assert text.count("**Better than now**, request `e") == 4
