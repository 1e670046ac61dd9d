"""The holdout through lm-eval, answered by an oracle instead of a model."""

import json
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from transformers import AutoTokenizer

from components.chat import chat_templates, dialects
from components.evaluate import holdout_task, lm_eval_tasks, task_metrics
from components.evaluate.holdout_task import EvaluatedSide
from components.evaluate.settings import Kind
from components.evaluate.task_metrics import AnswerSpace
from components.schema import Answer, Call, Json
from components.scorecard import Sample, aggregate
from tests.support import holdouts, templates, tiny
from tests.support.holdouts import Case
from tests.support.oracle import Oracle


def read(snapshot: Path, base: Path, named: Kind | None = None) -> EvaluatedSide:
    return holdout_task.read_side(snapshot, AutoTokenizer.from_pretrained(base), named)


@pytest.fixture
def holdout(tmp_path: Path, tiny_base: Path) -> EvaluatedSide:
    return read(holdouts.build(tmp_path), tiny_base)


def answer(holdout: EvaluatedSide, *outputs: str) -> list[Sample]:
    prompts = [document["prompt"] for document in holdout.documents]
    answers = dict(zip(prompts, outputs, strict=True))
    return lm_eval_tasks.evaluate_holdout(Oracle(answers.__getitem__), holdout, 64, "")


def test_right_answers_score_one(holdout: EvaluatedSide):
    samples = answer(holdout, *[document["reference"] for document in holdout.documents])
    assert {
        metric: (s.value, s.n)
        for metric, s in aggregate(samples, task_metrics.CALL_METRICS).items()
    } == {
        "valid_json": (1, 2),
        "schema_valid": (1, 2),
        "name": (1, 2),
        "name_and_arguments": (1, 2),
        "abstention": (1, 1),
        "over_triggering": (0, 1),
        "correct_name": (1, 3),
        "correct": (1, 3),
    }


def test_each_sample_has_its_request_answer_and_scores(holdout: EvaluatedSide):
    acceptable = '{"name": "weather", "arguments": {"city": "nyc", "unit": "C"}}'
    first, second, third = answer(holdout, "It rains.", acceptable, acceptable)
    assert (first.example_id, first.request) == ("e0", "Weather in Rome?")
    assert first.prompt.startswith("<|im_start|>system\nTools:\nweather() - Tell the weather")
    assert first.prompt.endswith("<|im_start|>assistant\n")
    assert first.cluster_id == "group of e0"
    assert first.slices == {"tool": "weather", "client": "app", "length": "middle"}
    assert third.slices["tool"] == "no call"
    assert first.reference == '{"name": "weather", "arguments": {"city": "Rome"}}'
    assert first.output == "It rains."
    assert first.scores == {
        "valid_json": 0,
        "schema_valid": 0,
        "name": 0,
        "name_and_arguments": 0,
        "abstention": None,
        "over_triggering": None,
        "correct_name": 0,
        "correct": 0,
    }
    assert second.scores["name_and_arguments"] == 1
    assert (third.scores["name"], third.scores["abstention"]) == (None, 0)


LABELS = ("card", "card payment", "loan")


def labelled(tmp_path: Path, base: Path) -> EvaluatedSide:
    """Make a holdout of three requests, and a larger training side."""
    cases = [Case(f"about a {label}", Answer(label)) for label in LABELS]
    return read(holdouts.build(tmp_path, cases, cases * 4, tools=[]), base)


def test_labels_are_read_from_the_answer_and_compared_by_likelihood(
    tmp_path: Path, tiny_base: Path
):
    def likely(prompt: str, answer: str) -> float:
        return float(f"about a {answer.removesuffix('<end>')}" in prompt) + len(answer) / 100

    holdout = labelled(tmp_path, tiny_base)
    assert holdout.answers == AnswerSpace("classification", LABELS)
    oracle = Oracle(lambda prompt: " card\n" if "card" in prompt else "A loan.", likely)
    cards, payments, loans = lm_eval_tasks.evaluate_holdout(oracle, holdout, 8, "<end>")
    assert [sample.scores for sample in (cards, payments, loans)] == [
        {"label": 1, "choice": 1},
        {"label": 0, "choice": 1},
        {"label": 0, "choice": 1},
    ]
    assert payments.slices.keys() == {"client", "length"}


def test_an_answers_end_token_is_scored_with_it(tmp_path: Path, tiny_base: Path):
    weighed: list[str] = []

    def likely(_: str, answer: str) -> float:
        weighed.append(answer)
        return 0.0

    lm_eval_tasks.evaluate_holdout(Oracle(likely=likely), labelled(tmp_path, tiny_base), 8, "<end>")
    assert weighed[:3] == ["card<end>", "card payment<end>", "loan<end>"]


def test_labels_are_compared_after_the_empty_thought_that_the_template_writes(
    tmp_path: Path, tiny_base: Path
):
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    tokenizer.chat_template = templates.THINKING
    cases = [Case(f"about a {label}", Answer(label)) for label in LABELS]
    snapshot = holdouts.build(tmp_path, cases, cases * 4, tools=[])
    holdout = holdout_task.read_side(snapshot, tokenizer, None)
    oracle = Oracle(lambda _: "<think>\n\n</think>\n\nloan")
    samples = lm_eval_tasks.evaluate_holdout(oracle, holdout, 8, "<end>")
    assert [sample.scores["label"] for sample in samples] == [0, 0, 1]
    written, compared = oracle.prompts[: len(LABELS)], oracle.prompts[len(LABELS) :]
    assert all(prompt.endswith("assistant\n") for prompt in written)
    assert {prompt.removesuffix("<think>\n\n</think>\n\n") for prompt in compared} == {*written}
    assert not {*written}.intersection(compared)


def test_no_label_is_right_where_production_did_not_name_one(tmp_path: Path, tiny_base: Path):
    odd = Case("about a cat", Answer("I am sorry, but I can not say what this is about."))
    learned = [Case(f"about a {label}", Answer(label)) for label in LABELS] * 17
    snapshot = holdouts.build(tmp_path, [learned[0], odd], learned, tools=[])
    holdout = read(snapshot, tiny_base, "classification")
    samples = lm_eval_tasks.evaluate_holdout(Oracle(lambda _: "card"), holdout, 8, "<end>")
    assert [sample.scores for sample in samples] == [
        {"label": 1, "choice": 1},
        {"label": 0, "choice": 0},
    ]


def test_texts_are_compared_by_their_words(tmp_path: Path, tiny_base: Path):
    cases = [Case("How are you?", Answer("Quite well, thank you, and how are you today?"))]
    holdout = read(holdouts.build(tmp_path, cases, cases, tools=[]), tiny_base)
    assert holdout.answers.kind == "text"
    (sample,) = lm_eval_tasks.evaluate_holdout(Oracle(lambda _: "Quite well"), holdout, 8, "")
    assert sample.scores["exact"] == 0
    assert [sample.scores[name] for name in ("f1", "rouge_l")] == pytest.approx([4 / 11] * 2)


def test_requests_are_sliced_by_the_length_of_their_prompts(tmp_path: Path, tiny_base: Path):
    cases = [Case("x" * length, Answer("No.")) for length in (900, 10, 400, 30, 500, 1000)]
    documents = read(holdouts.build(tmp_path, cases), tiny_base).documents
    assert [document["length"] for document in documents] == [
        "long",
        "short",
        "middle",
        "short",
        "middle",
        "long",
    ]


def test_requests_are_sliced_by_their_rows_language(tmp_path: Path, tiny_base: Path):
    snapshot = holdouts.build(tmp_path)
    table = pq.read_table(snapshot / holdout_task.HOLDOUT_FILE)
    spoken = pa.array(["en", None, "de"], pa.string())
    pq.write_table(table.append_column("language", spoken), snapshot / holdout_task.HOLDOUT_FILE)
    samples = answer(read(snapshot, tiny_base), "a", "b", "c")
    assert [sample.slices["language"] for sample in samples] == ["en", "not told", "de"]


@pytest.mark.parametrize("template", [tiny.TEMPLATE, templates.QWEN], ids=["written", "hermes"])
@pytest.mark.parametrize("thought", ["", "<think>\nAnother one.\n</think>\n\n"])
def test_a_logged_thought_is_none_of_an_answers_words(
    tmp_path: Path, tiny_base: Path, template: str, thought: str
):
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    tokenizer.chat_template = template
    answer = "Quite well, thank you, and how are you today?"
    cases = [Case("How are you?", Answer(f"<think>\nPolite?\n</think>\n\n{answer}"))]
    snapshot = holdouts.build(tmp_path, cases, cases, tools=[])
    holdout = holdout_task.read_side(snapshot, tokenizer, "text")
    oracle = Oracle(lambda _: f"{thought}{answer}")
    (sample,) = lm_eval_tasks.evaluate_holdout(oracle, holdout, 8, "")
    assert [sample.scores[name] for name in ("exact", "f1", "rouge_l")] == [1, 1, 1]


TOOLS, NONE = holdouts.TOOLS, list[dict[str, Json]]()
CALL_IN_TEXT = Answer('{"name":"weather","arguments":{}}')
TAGS_IN_TEXT = Answer("Qwen writes `<tool_call>`, Llama `<|python_tag|>`.")


@pytest.mark.parametrize("template", [tiny.TEMPLATE, templates.QWEN, templates.LLAMA3])
@pytest.mark.parametrize(
    ("right", "tools", "kind"),
    [
        pytest.param(Answer("Write `f = {x: 1}`, or \\frac{a}{b}."), TOOLS, None, id="code"),
        pytest.param(Answer('{"city": "Rome"}'), TOOLS, None, id="json-that-is-no-call"),
        pytest.param(
            Answer("Set {x: 1}.", (Call("weather", {"city": "Rome"}),)),
            TOOLS,
            None,
            id="code-and-call",
        ),
        pytest.param(CALL_IN_TEXT, NONE, "text", id="a-call-that-only-the-prompt-asks-for"),
        pytest.param(CALL_IN_TEXT, NONE, "classification", id="such-a-call-as-a-label"),
        pytest.param(CALL_IN_TEXT, NONE, "tool_calls", id="such-a-call-among-calls"),
        pytest.param(TAGS_IN_TEXT, NONE, "text", id="tags-that-are-explained"),
        pytest.param(TAGS_IN_TEXT, NONE, "tool_calls", id="such-tags-among-calls"),
        pytest.param(Answer("\U0001f44d"), NONE, "text", id="a-sign"),
        pytest.param(Answer("cafe\u0301"), NONE, "classification", id="accents"),
    ],
)
def test_a_right_answer_is_right_whatever_it_looks_like(
    tmp_path: Path,
    tiny_base: Path,
    template: str,
    right: Answer,
    tools: Sequence[dict[str, Json]],
    kind: Kind | None,
):
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    tokenizer.chat_template = template
    cases = [Case("Asked?", right), Case("Another?", Answer("Another."))]
    snapshot = holdouts.build(tmp_path, cases, cases, tools)
    holdout = holdout_task.read_side(snapshot, tokenizer, kind)
    written = dialects.write_answer(chat_templates.form_of(tokenizer), right)
    composed = unicodedata.normalize("NFC", written)
    sample, other = answer(holdout, composed, composed)
    names = sample.scores.keys() & {"correct", "exact", "f1", "rouge_l", "label"}
    assert [sample.scores[name] for name in names] == [1.0] * len(names)
    assert not any(other.scores.get(name) for name in ("exact", "label"))
    assert sample.scores.get("over_triggering") in (None, 0)
    assert holdout_task.unusual_answers(snapshot, holdout.answers.kind)


@pytest.mark.parametrize("template", [templates.QWEN, templates.LLAMA3])
def test_tags_are_part_of_a_text_where_no_tool_is_offered(
    tmp_path: Path, tiny_base: Path, template: str
):
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    tokenizer.chat_template = template
    snapshot = holdouts.build(tmp_path, [Case("Asked?", TAGS_IN_TEXT)], tools=NONE)
    holdout = holdout_task.read_side(snapshot, tokenizer, "text")
    (sample,) = answer(holdout, "Qwen writes ``, Llama ``.")
    assert sample.scores["exact"] == 0


@pytest.mark.parametrize("template", [tiny.TEMPLATE, templates.QWEN, templates.LLAMA3])
def test_calls_are_part_of_what_is_compared_as_text(tmp_path: Path, tiny_base: Path, template: str):
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    tokenizer.chat_template = template
    rome, oslo = (Answer("Sure.", (Call("weather", {"city": c}),)) for c in ("Rome", "Oslo"))
    cases = [Case(f"Rain? {number}", rome) for number in range(4)]
    snapshot = holdouts.build(tmp_path, cases, cases)
    holdout = holdout_task.read_side(snapshot, tokenizer, "text")
    form = chat_templates.form_of(tokenizer)
    written = [dialects.write_answer(form, each) for each in (rome, oslo, Answer("Sure."))]
    samples = answer(holdout, *written, "")
    assert [sample.scores["exact"] for sample in samples] == [1, 0, 0, 0]
    assert holdout_task.unusual_answers(snapshot, "text") == ["calls"]


def test_a_base_with_its_own_tool_template_is_prompted_and_parsed_by_it(
    tmp_path: Path, tiny_base: Path
):
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    tokenizer.chat_template = templates.QWEN
    holdout = holdout_task.read_side(holdouts.build(tmp_path), tokenizer, None)
    call = '<tool_call>\n{"name": "weather", "arguments": {"city": "Rome"}}\n</tool_call>'
    first, second, third = answer(holdout, call, "<tool_call>", "Sorry, no.")
    assert "<tools>\n" + json.dumps(holdouts.TOOLS[0]) in first.prompt
    assert first.scores["name_and_arguments"] == 1
    assert second.scores["valid_json"] == 0
    assert third.scores["abstention"] == 1


def test_two_models_get_the_same_prompts(holdout: EvaluatedSide):
    first, second = answer(holdout, "a", "b", "c"), answer(holdout, "d", "e", "f")
    assert [(s.doc_hash, s.prompt_hash) for s in first] == [
        (s.doc_hash, s.prompt_hash) for s in second
    ]
    assert len({s.doc_hash for s in first}) == 3


def test_an_empty_holdout_measures_nothing(tmp_path: Path, tiny_base: Path):
    snapshot = holdouts.build(tmp_path, [])
    with pytest.raises(ValueError, match="its holdout side is empty"):
        read(snapshot, tiny_base)


@pytest.mark.parametrize("lost", [0, 2])
def test_a_request_that_lm_eval_lost_is_an_error(holdout: EvaluatedSide, lost: int):
    def logged(number: int) -> dict[str, object]:
        document = holdout.documents[number]
        return {
            "filter": "none",
            "doc_id": number,
            "doc": document,
            "doc_hash": str(number),
            "prompt_hash": str(number),
            "arguments": [(document["prompt"], {})],
            "filtered_resps": ["x"],
        }

    rows = [logged(number) for number in range(3)]
    assert len(lm_eval_tasks.read_samples(rows, holdout)) == 3
    with pytest.raises(ValueError, match=r"returned 2 samples that are not the 3 requests"):
        lm_eval_tasks.read_samples(rows[:lost] + rows[lost + 1 :], holdout)
    with pytest.raises(ValueError, match="with their exact prompts"):
        lm_eval_tasks.read_samples(
            [*rows[:2], {**rows[2], "arguments": [("other words", {})]}], holdout
        )
