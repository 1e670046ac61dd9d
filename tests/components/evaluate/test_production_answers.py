"""Production's answers are scored where something else defines what is right."""

from pathlib import Path

import pytest
from transformers import AutoTokenizer

from components import scorecard
from components.evaluate import baselines, harness, holdout_task
from components.evaluate.settings import EvaluationSettings, Kind
from components.schema import AcceptableCall, Answer, Call
from components.scorecard import HOLDOUT, PRODUCTION, Sample
from tests.support import holdouts
from tests.support.holdouts import NOW, Case

SETTINGS = EvaluationSettings(precision="fp32", batch_size=2, max_new_tokens=8)
ROME, OSLO = (Answer(calls=(Call("weather", {"city": city}),)) for city in ("Rome", "Oslo"))
NEWS = Answer(calls=(Call("news", {}),))
NONE = Answer("No tool fits this.")
IN_ROME = (AcceptableCall("weather", {"city": ["Rome", "Roma"]}),)


def score(tmp_path: Path, base: Path, cases: list[Case], kind: Kind | None = None) -> list[Sample]:
    snapshot = holdouts.build(tmp_path, cases, tools=holdouts.TOOLS if kind is None else [])
    holdout = holdout_task.read_side(snapshot, AutoTokenizer.from_pretrained(base), kind)
    logged = baselines.read_logged(snapshot, holdout.answers.kind)
    assert logged is not None
    return baselines.score_logged(holdout, logged, 64)


SAID = {
    "right": ROME,
    "acceptable": Answer(calls=(Call("weather", {"city": "Roma"}),)),
    "another value": OSLO,
    "another function": NEWS,
    "no call": NONE,
    "broken": Answer('{"name": "weather", "arguments": '),
    "nothing": Answer(),
}
TO_A_POEM = {"no call": NONE, "needless call": NEWS}


@pytest.fixture(scope="module")
def valued(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> dict[str, Sample]:
    """Score uncorrected answers against reference values; return them by request."""
    cases = [Case(f"Rome? {name}", answer, IN_ROME, logged=answer) for name, answer in SAID.items()]
    cases += [
        Case(f"A poem: {name}", answer, (), logged=answer) for name, answer in TO_A_POEM.items()
    ]
    samples = score(tmp_path_factory.mktemp("valued"), tiny_base, cases)
    return {sample.request: sample for sample in samples}


@pytest.mark.parametrize(
    ("answer", "name", "correct"),
    [
        ("right", 1, 1),
        ("acceptable", 1, 1),
        ("another value", 1, 0),
        ("another function", 0, 0),
        ("no call", 0, 0),
        ("broken", 0, 0),
        ("nothing", 0, 0),
    ],
)
def test_reference_values_judge_an_answer_that_nobody_corrected(
    valued: dict[str, Sample], answer: str, name: float, correct: float
):
    scores = valued[f"Rome? {answer}"].scores
    assert (scores["correct_name"], scores["correct"]) == (name, correct)


@pytest.mark.parametrize(("answer", "abstention"), [("no call", 1), ("needless call", 0)])
def test_an_empty_list_of_reference_values_means_that_no_call_is_right(
    valued: dict[str, Sample], answer: str, abstention: float
):
    scores = valued[f"A poem: {answer}"].scores
    assert scores["abstention"] == scores["correct_name"] == abstention
    assert scores["name"] is None


def test_requests_without_reference_values_do_not_count_if_others_have_them(
    tmp_path: Path, tiny_base: Path
):
    corrected = Case("Rome?", ROME, logged=OSLO)
    uncorrected = Case("Oslo?", OSLO, logged=OSLO)
    valued = Case("And Rome?", ROME, IN_ROME, logged=ROME)
    samples = score(tmp_path, tiny_base, [corrected, uncorrected, valued])
    assert [sample.scores["correct"] for sample in samples] == [None, None, 1]
    assert '"city": "Oslo"' in samples[0].output


def test_without_reference_values_only_corrected_answers_count(tmp_path: Path, tiny_base: Path):
    cases = [Case("Rome?", ROME, logged=OSLO), Case("Oslo?", OSLO, logged=OSLO)]
    snapshot = holdouts.build(tmp_path, cases)
    folders = harness.evaluate(
        snapshot,
        tiny_base,
        {"base": None},
        tmp_path / "scorecards",
        SETTINGS,
        report=lambda _: None,
        now=NOW,
    )
    card, base = (scorecard.read(folders[model][HOLDOUT]) for model in (PRODUCTION, "base"))
    assert (card.scores["correct"].value, card.scores["correct"].n) == (0, 1)
    assert card.adapter == PRODUCTION
    assert card.conditions["corrected_only"] is True
    assert str(card.conditions["scored_on"]).startswith("1 of 2 requests: those that people corr")
    assert [sample.doc_hash for sample in card.samples] == [
        sample.doc_hash for sample in base.samples
    ]


def test_texts_are_scored_against_peoples_corrections(tmp_path: Path, tiny_base: Path):
    case = Case("Hi", Answer("Good day to you"), logged=Answer("Good day"))
    (sample,) = score(tmp_path, tiny_base, [case], "text")
    assert (sample.scores["exact"], sample.scores["f1"]) == (0, pytest.approx(2 / 3))


@pytest.mark.parametrize(
    "cases",
    [
        pytest.param([Case("Rome?", ROME)], id="an-old-snapshot"),
        pytest.param([Case("Rome?", ROME, logged=ROME)], id="its-own-reference"),
    ],
)
def test_requests_with_only_the_logged_reference_are_not_scored(tmp_path: Path, cases: list[Case]):
    assert baselines.read_logged(holdouts.build(tmp_path, cases), "tool_calls") is None
