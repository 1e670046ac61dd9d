"""A judge's verdicts as scorecards: their content, and when the gate accepts them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components import scorecard
from components.dataset.example_rows import CHAT
from components.evaluate import task_metrics
from components.evaluate.answer_judge import JudgeError
from components.extensions.judge import win_rate
from components.gate import comparison
from components.gate.comparability import objections
from components.gate.policy import Guard, Policy
from components.schema import Answer, Json, Message
from components.scorecard import HOLDOUT, PRODUCTION, ScorecardFolders
from components.store import manifest, output_folders
from tests.support import holdouts
from tests.support.cards import sample
from tests.support.holdouts import NOW, TOOLS, Case
from tests.support.judge_bench import Judge, longer, serving

RIGHT = "a right answer"
CASES = [Case(f"question {number}", Answer(RIGHT)) for number in range(4)]
SAID = {
    "base": ["no", "no", RIGHT, "no"],
    "challenger": ["a much better answer", "no", RIGHT, "an even better answer"],
    PRODUCTION: ["no", "no", "no", "a much better answer"],
}
GUARD = Policy(
    task=HOLDOUT,
    metric="f1",
    abstention_margin=None,
    guards=(Guard(task="judge", metric="judge_win_rate", margin=0.1),),
)


@pytest.fixture
def home(tmp_path: Path) -> tuple[Path, Path, ScorecardFolders]:
    """A snapshot, a folder for scorecards, and the holdout's."""
    return measured(tmp_path, RIGHT, SAID)


def measured(
    folder: Path,
    reference: str,
    said: Mapping[str, Sequence[str]],
    tools: Sequence[dict[str, Json]] = (),
) -> tuple[Path, Path, ScorecardFolders]:
    cases = [replace(case, answer=Answer(reference)) for case in CASES]
    snapshot, root = holdouts.build(folder, cases, tools=tools), folder / "scorecards"
    cards: ScorecardFolders = {}
    for model, outputs in said.items():
        samples = [
            replace(
                sample(number, 1.0),
                output=output,
                reference=reference,
                # Of production's answers the first is the reference itself.
                scores=dict.fromkeys(
                    task_metrics.TEXT_METRICS, None if (model, number) == (PRODUCTION, 0) else 0.5
                ),
            )
            for number, output in enumerate(outputs)
        ]
        body = {"base": "b", "adapter": model, "task": HOLDOUT, "conditions": {"kind": "text"}}
        cards[model] = {HOLDOUT: root / f"key-{model}"}
        scorecard.write(
            cards[model][HOLDOUT], samples, task_metrics.TEXT_METRICS, body=body, now=NOW
        )
    return snapshot, root, cards


def compared_by_people(snapshot: Path, count: int, *, longer_won: int, thought: str = "") -> None:
    """Write pairs; people chose the longer answer in ``longer_won`` of them."""
    rows = [
        {
            "preference_id": f"p{number}",
            "prompt": [{"role": "user", "content": f"asked {number}"}],
            "chosen": [said(thought + "long" * (number < longer_won) + "words")],
            "rejected": [said(thought + "some words" * (number >= longer_won))],
        }
        for number in range(count)
    ]
    schema = pa.schema(
        [
            ("preference_id", pa.string()),
            *((name, CHAT) for name in ("prompt", "chosen", "rejected")),
        ]
    )
    pq.write_table(pa.Table.from_pylist(rows, schema), snapshot / "preferences.parquet")


def said(content: str) -> Message:
    return {"role": "assistant", "content": content}


def judge(home: tuple[Path, Path, ScorecardFolders], asked: Judge) -> ScorecardFolders:
    snapshot, root, cards = home
    with serving(asked):
        address = asked.settings.base_url.replace("://", "://ada:s3cr3t@")
        settings = asked.settings.model_copy(update={"base_url": address})
        folders = win_rate.add_judge_folders(snapshot, cards, root, settings)
        win_rate.judge_answers(snapshot, folders, root, settings, key=None, now=NOW)
        questions = len(asked.asked)
        win_rate.judge_answers(snapshot, folders, root, settings, key=None, now=NOW)
        assert len(asked.asked) == questions
    return folders


def test_each_answer_is_compared_with_the_reference_and_pairs_with_the_holdout(
    home: tuple[Path, Path, ScorecardFolders],
):
    compared_by_people(home[0], 40, longer_won=40)
    folders = judge(home, Judge(longer))
    cards = {model: scorecard.read(tasks["judge"]) for model, tasks in folders.items()}
    scores = {
        model: [sample.scores["judge_win_rate"] for sample in card.samples]
        for model, card in cards.items()
    }
    assert scores == {
        "base": [0, 0, 0.5, 0],
        "challenger": [1, 0, 0.5, 1],
        PRODUCTION: [None, 0, 0, 1],
    }
    assert cards["base"].conditions == cards["challenger"].conditions
    assert "s3cr3t" not in str(cards["base"].conditions)  # which the report shows
    assert cards["base"].conditions != cards[PRODUCTION].conditions
    holdout = scorecard.read(folders["base"][HOLDOUT])
    assert [sample.doc_hash for sample in cards["base"].samples] == [
        sample.doc_hash for sample in holdout.samples
    ]
    metric = cards["base"].metrics["judge_win_rate"]
    assert metric.doubt is None
    assert "it agreed with people on 40 of the 40 pairs that it decided (100%," in metric.meaning


@pytest.mark.parametrize(
    ("pairs", "longer_won", "doubt"),
    [
        pytest.param(40, 40, None, id="agrees"),
        pytest.param(40, 24, "it agreed with people on 24 of the 40 pairs", id="agrees-too-seldom"),
        pytest.param(0, 0, "whether the judge agrees with people here is not known", id="unknown"),
    ],
)
def test_the_gate_refuses_a_judge_whose_agreement_with_people_is_unknown(
    home: tuple[Path, Path, ScorecardFolders], pairs: int, longer_won: int, doubt: str | None
):
    if pairs:
        compared_by_people(home[0], pairs, longer_won=longer_won)
    folders = judge(home, Judge(longer))
    ours, theirs = (
        {task: scorecard.read(folder) for task, folder in folders[model].items()}
        for model in ("challenger", "base")
    )
    reasons = objections(ours, theirs, GUARD)
    if doubt is None:
        assert reasons == []
    else:
        known = "not measured: judge_win_rate on judge of the challenger is no evidence: "
        assert reasons[0].startswith(known)
        assert doubt in reasons[0]


@pytest.mark.parametrize(
    ("texts", "unjudged", "doubt"),
    [
        pytest.param(["much"], 1, None, id="one-is-a-tie"),
        pytest.param(["much", "even"], 2, "no verdict on 2 of 4 requests", id="more-are-none"),
    ],
)
def test_a_request_without_a_verdict_is_a_tie_whose_number_is_shown(
    home: tuple[Path, Path, ScorecardFolders], texts: list[str], unjudged: int, doubt: str | None
):
    compared_by_people(home[0], 40, longer_won=40)

    def silent(first: str, second: str) -> str:
        return "?" if any(text in first + second for text in texts) else longer(first, second)

    folders = judge(home, Judge(silent))
    ours, theirs = (
        {task: scorecard.read(folder) for task, folder in folders[model].items()}
        for model in ("challenger", "base")
    )
    card = ours["judge"]
    shown = f"it gave no verdict on {unjudged} of 4 requests, which count as ties"
    assert shown in card.metrics["judge_win_rate"].meaning
    assert [sample.scores["judge_win_rate"] for sample in card.samples].count(0.5) == 1 + unjudged
    reasons = objections(ours, theirs, GUARD)
    assert reasons == [] if doubt is None else doubt in reasons[0]


def test_a_logged_thought_is_no_part_of_what_a_judge_compares(tmp_path: Path):
    home = measured(
        tmp_path, f"<think>Rain?</think>\n\n{RIGHT}", {"base": [RIGHT, "no", "no", "no"]}
    )
    compared_by_people(home[0], 40, longer_won=40, thought="<think>Which one?</think>\n")
    asked = Judge(longer)
    card = scorecard.read(judge(home, asked)["base"]["judge"])
    assert [sample.scores["judge_win_rate"] for sample in card.samples] == [0.5, 0, 0, 0]
    assert not [body for body in asked.asked if "<think>" in str(body)]


def test_json_like_a_calls_is_judged_where_no_tool_was_offered(tmp_path: Path):
    called = '{"name": "weather", "arguments": {"city": "Rome"}}'
    home = measured(tmp_path, RIGHT, {"base": [called] * 4})
    compared_by_people(home[0], 40, longer_won=40)
    card = scorecard.read(judge(home, Judge(longer))["base"]["judge"])
    assert card.scores["judge_win_rate"].value == 1


@pytest.mark.parametrize("key", ["arguments", "parameters"])
def test_calls_are_judged_with_the_text_where_tools_were_offered(tmp_path: Path, key: str):
    called = '{"name": "weather", "arguments": {"city": "Rome"}}'
    written = called.replace("arguments", key)
    home = measured(tmp_path, f"Sure.\n{called}", {"base": [f"Sure.\n{written}"] * 4}, TOOLS)
    asked = Judge(longer)
    judge(home, asked)
    assert asked.asked == []


def test_a_model_whose_few_answers_are_all_refused_does_not_end_the_evaluation(tmp_path: Path):
    home = measured(tmp_path, RIGHT, {"base": ["no"] * 4, PRODUCTION: ["bomb"] * 4})
    compared_by_people(home[0], 40, longer_won=40)
    folders = judge(home, Judge(longer, filtered="bomb"))
    cards = [scorecard.read(folders[model]["judge"]) for model in ("base", PRODUCTION)]
    doubts = [card.metrics["judge_win_rate"].doubt for card in cards]
    assert doubts[0] is None
    assert "no verdict on 3 of 3 requests" in str(doubts[1])


def test_a_judges_scores_are_tested_with_the_clusters_that_the_holdout_can_have(
    home: tuple[Path, Path, ScorecardFolders],
):
    snapshot, _, _ = home
    compared_by_people(snapshot, 40, longer_won=40)
    record = manifest.read(snapshot)
    body = record | {"largest_cluster": 9, "config": {"holdout_per_cluster": 3}}
    (snapshot / manifest.NAME).unlink()
    manifest.write(snapshot, kind="snapshot", now=NOW, body=body)
    folders = judge(home, Judge(longer))
    ours, theirs = (scorecard.read(folders[model]["judge"]) for model in ("challenger", "base"))
    compared = comparison.pair_scores(ours, theirs, "judge_win_rate", None)
    assert compared.pairs.most == 3


def test_a_judge_that_fails_leaves_no_scorecard(home: tuple[Path, Path, ScorecardFolders]):
    compared_by_people(home[0], 3, longer_won=3)
    with pytest.raises(JudgeError):
        judge(home, Judge(longer, key="secret"))
    assert not [path for path in home[1].glob("*/manifest.json") if "key-" not in str(path)]


def test_a_judge_is_asked_no_more_and_remembers_nothing_of_requests_that_are_erased_meanwhile(
    home: tuple[Path, Path, ScorecardFolders],
):
    snapshot, root, _ = home
    compared_by_people(snapshot, 40, longer_won=40)

    def erases(first: str, second: str) -> str:
        with output_folders.while_none_finishes(root.parent):
            output_folders.remove(snapshot)
        return longer(first, second)

    asked = Judge(erases)
    with pytest.raises(output_folders.SourceGoneError):
        judge(home, asked)
    assert len(asked.asked) <= 2 * asked.settings.concurrency
    assert not (root / scorecard.VERDICTS_FILE).exists()
