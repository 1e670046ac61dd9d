"""The report: one self-contained file with escaped text."""

import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from components.costs import Prices
from components.gate import evidence_folder
from components.gate.policy import Guard, Policy
from components.gate.report import baseline_comparison, production_costs, write_report
from components.gate.report import write_report as report
from components.gate.report.report_charts import Past
from components.gate.report.side_by_side import figures
from components.gate.report.words import Case
from components.scorecard import CONSTANT, FEW_SHOT, HOLDOUT, NEAREST, PRODUCTION
from tests.support import gate_cases
from tests.support.cards import card, guard_card, in_clusters, pair, rescored, under

THIS = Past("01-02", "v1-abc", "pass", 0.9, 0.8, 0.95, 0.5)


class Read(HTMLParser):
    """A page as a browser parses it: its elements and their text."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += f" {data}"

    @property
    def words(self) -> str:
        return " ".join(self.text.split())


def page(case: Case) -> Read:
    """Render the report without its charts."""
    return Read(report.html(case, figures(case.challenger, case.opponent, case.judgement), {}))


def test_the_verdict_is_one_sentence() -> None:
    words = page(gate_cases.clear()).words
    assert "may the challenger replace the base?" in words
    assert (
        "Pass. The challenger is better by the references: +33.9 points of correct name against "
        "the base on 112 held-out requests in 112 clusters (95 % interval +24.6 to +43.5), and "
        "one guarded figure was shown not to "
        "get worse, at 3.3% of production's price of a request."
    ) in words


@pytest.mark.parametrize(
    ("rights", "sentence"),
    [
        pytest.param((5, 0, 50, 10), "Inconclusive. It is undecided: +4.8", id="open"),
        pytest.param((2, 40, 20, 10), "Fail. The challenger should not replace the", id="worse"),
    ],
)
def test_the_verdict_sentence_of_a_failing_or_open_judgement(
    rights: tuple[int, int, int, int], sentence: str
) -> None:
    assert sentence in page(gate_cases.build(*pair(*rights))).words


def test_a_lead_is_not_called_hopeless_where_only_another_task_is_open() -> None:
    """It said that no number of requests would decide, of a target that had passed."""
    policy = Policy(guards=(Guard(task="arc_easy", metric="acc", margin=0.05),))
    open_guard = guard_card([1.0, 0.0] * 35), guard_card([0.0, 1.0] * 35)
    words = page(gate_cases.clear(policy=policy, guards={"arc_easy": open_guard})).words
    assert "Inconclusive. It is undecided: +33.9 points" in words
    assert "+24.6 to +43.5); the reasons are below." in words
    few = page(gate_cases.clear(policy=Policy(min_documents=500))).words
    assert "+24.6 to +43.5); the reasons are below." in few


def test_what_earlier_bets_decided_is_not_shown_with_a_p_value_that_decided_nothing() -> None:
    case = gate_cases.clear()
    target, *others = case.judgement.comparisons
    continued = replace(target, begun=1, p_value=0.2)
    judgement = replace(case.judgement, comparisons=(continued, *others))
    words = page(replace(case, judgement=judgement)).words
    assert f"better ({target.test}, since look 1)" in words
    assert "p = 0.2)" not in words


def test_it_states_what_would_change_and_for_whom() -> None:
    words = page(gate_cases.clear()).words
    assert (
        "Of 112 held-out requests, 40 would be answered better than now, 2 worse, and 70" in words
    )
    assert (
        "By tool, in points: no call +0.0 (n = 40 in 40 clusters), weather +52.8 (n = 72 in 72 "
        "clusters)."
    ) in words


def test_requests_are_listed_with_their_clusters() -> None:
    case = gate_cases.build(*(in_clusters(scorecard, 4) for scorecard in pair(40, 2, 20, 10)))
    words = page(case).words
    assert "+10.3 to +56.2 112 28 better (bets on clusters of up to 4 requests" in words
    assert "tool: weather 40 2 +52.8 +15.6 to +82.8 72 18" in words
    assert "not measured not measured 89.3% 112 28" in words, "beside what needs no training"
    assert "72.8% to 96.3% 112 28" in words, "kept of production"


def test_a_part_of_the_traffic_that_got_worse_is_named() -> None:
    ours = card([1.0] * 60, [0.0] * 30 + [1.0] * 5)
    theirs = card([0.0] * 60, [1.0] * 35)
    words = page(gate_cases.build(ours, theirs)).words
    assert "It is significantly worse for: tool no call." in words


def test_references_that_our_own_versions_answered_are_named() -> None:
    case = replace(gate_cases.clear(), references=("Of 9 held-out requests, 4 are version 2's.",))
    assert "Of 9 held-out requests, 4 are version 2's." in page(case).words


def test_it_states_the_share_of_quality_kept_and_its_price() -> None:
    words = page(gate_cases.clear()).words
    assert "The challenger keeps 90.9% of production's correct name (95 % interval" in words
    assert "58 requests" in words
    assert "Its logged answers score 98.2% by correct name there, the challenger's 89.3%" in words
    alone = page(gate_cases.build(*pair(40, 2, 20, 10))).words
    assert "keeps 89.3% of production's correct name" in alone
    assert "they are assumed right, since the holdout's references are these answers" in alone


def test_the_share_kept_is_listed_for_the_target_and_for_the_whole_answer() -> None:
    ours, theirs = pair(40, 2, 20, 10)
    half = [1.0, 0.0] * 30 + [
        0.0
    ] * 12  # of 60 calls that are right by name, 30 have a wrong argument
    whole = rescored(ours, "name_and_arguments", [*half, *[None] * 40])
    whole = rescored(whole, "correct", [*half, *[1.0] * 40])
    case = gate_cases.build(whole, theirs, others={PRODUCTION: card([1.0] * 72)})
    kept, *_ = production_costs.account(case)
    assert kept.startswith(
        "The challenger keeps 89.3% of production's correct name (95 % interval 82.2% to 93.8%, "
        "Wilson, 112 distinct requests in 112 clusters), 41.7% of production's name and arguments ("
    )
    assert " and 62.5% of production's correct (" in kept
    words = page(case).words
    assert kept in words
    assert "name and arguments 100.0% 41.7% 41.7%" in words


def test_production_scored_on_corrections_only_is_assumed_right_elsewhere() -> None:
    fixed = card([0.0] * 8 + [None] * 64, [None] * 40)
    fixed = under(fixed, corrected_only=True)
    case = gate_cases.build(*pair(40, 2, 20, 10), others={PRODUCTION: fixed})
    words = page(case).words
    assert "The challenger keeps 96.2% of production's correct name" in words  # 100 of 104
    assert "assumed right where nobody corrected them" in words
    assert "On the 8 requests that people corrected it scores 0.0%." in words
    (point,) = (point for point in report.priced(case) if point.name.startswith(PRODUCTION))
    assert point.name == "production, assumed right"
    assert point.score == pytest.approx(104 / 112)


def test_production_is_compared_only_on_requests_with_its_score() -> None:
    half = under(card([1.0] * 20 + [None] * 52, [None] * 40), scored_on="20 of 112 requests: those")
    words = page(gate_cases.build(*pair(18, 2, 52, 0), others={PRODUCTION: half})).words
    assert "keeps 90.0% of production's correct name" in words
    assert "20 requests" in words
    assert "it was scored on 20 of 112 requests: those" in words


def test_the_account_lists_each_amount_with_its_formula() -> None:
    kept, *amounts = production_costs.account(gate_cases.clear())
    assert kept.startswith("The challenger keeps 90.9% of production's correct name")
    assert ", at 3.33% of its price of a request (means over distinct requests)." in kept
    assert amounts == [
        "a request in production: 0.00150 USD = (400.0 tokens in x 2.5 + 50.0 out x 10) / "
        "1,000,000 (means of 120 requests, as the logs say)",
        "a request to the challenger: 0.0000500 USD = 0.5 an hour / 2 cores x 0.72 core-seconds / "
        "3600 s / 1 utilization, assumed in the workload's file (100 requests took 72 core-seconds "
        "in batches on 2 threads of a CPU, CPU time)",
        "the training: 0.0833 USD = 0.5 an hour / 2 cores x 1,200 core-seconds / 3600 s (CPU time)",
        "the training has paid for itself after 58 requests",
        "At production's assumed prices both cost the same at a utilization of 3.33%. At the "
        "assumed utilization of 100%, which is 10,000 requests an hour, both cost the same if "
        "production costs 3.33% of its assumed prices (0.0000500 USD a request).",
    ]
    assert len(production_costs.account(gate_cases.clear(prices=Prices()))) == 1


def test_an_unbeaten_baseline_is_named_next_to_the_verdict() -> None:
    ours, theirs = pair(40, 2, 20, 10)
    constant, similar = card([1.0] * 54 + [0.0] * 18), card([0.0] * 72, [0.0] * 40)
    case = gate_cases.build(ours, theirs, others={CONSTANT: constant, NEAREST: similar})
    words = page(case).words
    before, after = words.split("What would change, and for whom")
    sentence = "By correct name the challenger is not shown to beat a constant answer, which scores"
    assert f"{sentence} 83.9% (+5.4 points, 95 % interval" in before
    assert "score constant nearest few-shot challenger n clusters" in after
    assert "correct name 83.9% 0.0% not measured 89.3% 112 112" in after
    assert (
        "By correct name the challenger, at 89.3%, beats the answer to the most similar training "
        "request (0.0%); the 95 % interval of each difference is above zero."
    ) in after


def test_a_challenger_that_is_behind_a_constant_answer_does_not_beat_it() -> None:
    case = gate_cases.build(*pair(40, 2, 20, 10), others={CONSTANT: card([1.0] * 72)})
    comparison = baseline_comparison.hold(case)
    assert comparison.unbeaten[0].startswith(
        "By correct name the challenger does not beat a constant answer, which scores 100.0% "
        "(-10.7 points, 95 % interval"
    )
    assert {
        metric
        for metric, row in baseline_comparison.baseline_scores(case).items()
        if row[CONSTANT] == 1
    } == {
        *("valid_json", "schema_valid", "name", "name_and_arguments", "abstention"),
        *("correct_name", "correct"),
    }


def test_few_shot_is_compared_on_the_same_requests_despite_different_prompts() -> None:
    ours, theirs = pair(40, 2, 20, 10)
    samples = tuple(
        replace(
            sample, doc_hash=f"other {sample.doc_hash}", prompt_hash=f"longer {sample.prompt_hash}"
        )
        for sample in theirs.samples
    )
    case = gate_cases.build(ours, theirs, others={FEW_SHOT: replace(theirs, samples=samples)})
    comparison = baseline_comparison.hold(case)
    assert comparison.unbeaten == ()
    assert "beats the base with solved examples in its prompt (55.4%)" in comparison.others[0]
    assert "constant was not measured; evaluate it again." in comparison.others


def test_without_prices_no_cost_chart_is_drawn_and_the_missing_keys_are_named(
    tmp_path: Path,
) -> None:
    case = replace(gate_cases.clear(prices=Prices()), turns=[])
    report.write(case, tmp_path, this=THIS)
    report_page = Read((tmp_path / evidence_folder.REPORT).read_text())
    assert "set cost.production.input and cost.production.output" in report_page.words
    assert "set cost.hardware_per_hour" in report_page.words
    assert not (tmp_path / report.PICTURES["cost"]).exists()
    assert not (tmp_path / report.PICTURES["history"]).exists(), "of a first turn"


def test_a_challenger_that_is_dearer_at_any_utilization_is_reported() -> None:
    dear = gate_cases.PRICES.model_copy(update={"hardware_per_hour": 40.0, "utilization": 0.5})
    words = page(gate_cases.clear(prices=dear)).words
    assert "the challenger is dearer even without idle time" in words
    assert "both cost the same if production costs 533% of its assumed prices" in words


def test_the_assumed_utilization_is_listed_with_the_price_of_a_request() -> None:
    unnamed = Prices(production=gate_cases.PRICES.production, hardware_per_hour=0.5)
    words = page(gate_cases.clear(prices=unnamed)).words
    assert "0.5 utilization, assumed since cost.utilization is not set" in words


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a report with all charts."""
    folder = tmp_path_factory.mktemp("report")
    report.write(gate_cases.clear(), folder, this=THIS)
    return folder


def test_the_page_is_self_contained(written: Path) -> None:
    text = Read((written / evidence_folder.REPORT).read_text())
    assert text.tags["script"] == text.tags["link"] == text.tags["iframe"] == 0
    addresses = [value for _, name, value in text.attributes if name in ("src", "href", "action")]
    assert len(addresses) == len(report.PICTURES)
    assert all(value.startswith("data:image/png;base64,") for value in addresses)
    (policy,) = (value for _, _, value in text.attributes if value.startswith("default-src"))
    assert "default-src 'none'" in policy
    assert "script-src" not in policy
    assert not re.search(r"url\(|@import|\bon\w+=", (written / evidence_folder.REPORT).read_text())


@pytest.mark.parametrize(
    "hostile",
    [
        pytest.param("<script>alert('HOSTILE')</script>", id="script"),
        pytest.param("</pre></article><h1>HOSTILE: pass</h1>", id="closes-elements"),
        pytest.param('"><img src=https://example.org/HOSTILE onerror=alert(1)>', id="attribute"),
        pytest.param("{{ 7 * 7 }}{% include 'page.html' %}HOSTILE", id="template"),
        pytest.param("&lt;b&gt;HOSTILE &amp;#60;", id="entities"),
        pytest.param("<!-- HOSTILE", id="comment"),
        pytest.param("]]><style>body{display:none}</style>HOSTILE", id="style"),
    ],
)
def test_text_of_users_and_models_is_escaped(hostile: str) -> None:
    def read(text: str) -> Read:
        ours, theirs = (gate_cases.saying(scorecard, text) for scorecard in pair(8, 2, 60, 0))
        subject = replace(gate_cases.SUBJECT, workload=text)
        return page(gate_cases.build(ours, theirs, subject=subject, note=text))

    harmless, changed = read("HOSTILE"), read(hostile)
    assert changed.tags == harmless.tags
    assert len(changed.attributes) == len(harmless.attributes)
    # The request, its reference and both answers, of ten requests; workload, note and slices.
    assert changed.text.count(hostile) >= 4 * 10 + 3


def test_direction_marks_and_control_characters_are_visible() -> None:
    ours, theirs = (
        gate_cases.saying(scorecard, "pay \u202eme\x1b[2J\x00") for scorecard in pair(8, 2, 60, 0)
    )
    text = page(gate_cases.build(ours, theirs)).text
    assert "pay \\u202eme\\u001b[2J\\u0000" in text
    assert not {"\u202e", "\x1b", "\x00"} & {*text}


def test_incomparable_models_have_a_reason_and_no_differences() -> None:
    ours, theirs = pair(40, 2, 20, 10)
    case = gate_cases.build(under(ours, holdout_version="v2"), theirs)
    words = page(case).words
    assert "Fail. The challenger was not compared with the base, so it does not pass." in words
    assert "not comparable: holdout_version is 'v2' for the challenger" in words
    assert "not compared" in words
    assert "+33.9" not in words


def test_guards_of_other_tasks_are_listed_with_the_guards() -> None:
    ours, theirs = pair(40, 2, 20, 10)
    policy = Policy(guards=(Guard(task="piqa", metric="correct", margin=0.05),))
    guard = replace(card([1.0] * 200), task="piqa")
    case = gate_cases.build(ours, theirs, policy=policy, guards={"piqa": (guard, guard)})
    words = page(case).words
    assert "piqa: correct" in words
    assert "no worse than the 5 points allowed" in words


def test_the_conditions_and_the_digest_are_named() -> None:
    words = page(gate_cases.clear()).words
    assert "holdout version v1-abc" in words
    assert '"precision": "nf4"' in words
    assert "look 1 at this holdout, at alpha 0.025" in words
    assert "Evidence e1 : a decision is bound to it" in words


def test_every_request_has_a_row_with_both_answers(tmp_path: Path) -> None:
    case = gate_cases.clear()
    write_report.write_answers(tmp_path / evidence_folder.SAMPLES, case.challenger, case.opponent)
    rows = pq.read_table(tmp_path / evidence_folder.SAMPLES).to_pylist()
    assert len(rows) == len(case.challenger[HOLDOUT].samples)
    (lost,) = (row for row in rows if row["example_id"] == "e40")
    assert (lost["challenger"], lost["opponent"]) == ("wrong", "right")
    assert dict(lost["challenger_scores"])["correct_name"] == 0
    assert dict(lost["slices"]) == {"tool": "weather", "client": "app"}


def test_equal_cases_make_equal_files(written: Path, tmp_path: Path) -> None:
    report.write(gate_cases.clear(), tmp_path, this=THIS)
    names = {evidence_folder.REPORT, evidence_folder.SAMPLES, *report.PICTURES.values()}
    assert {path.name for path in written.iterdir()} == names
    for name in names:
        assert (tmp_path / name).read_bytes() == (written / name).read_bytes()


def test_production_is_drawn_only_with_its_price() -> None:
    case = gate_cases.clear()
    assert {point.name for point in report.priced(case)} == {"challenger", "base", PRODUCTION}
    unscored = gate_cases.build(*pair(40, 2, 20, 10))
    assert {point.name for point in report.priced(unscored)} == {
        "challenger",
        "base",
        "production, assumed right",
    }
    free = gate_cases.clear(prices=Prices(hardware_per_hour=0.5))
    assert {point.name for point in report.priced(free)} == {"challenger", "base"}
