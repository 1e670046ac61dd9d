"""A base whose template supports tools is trained on the same text that evaluation uses."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerBase

from components.schema import Answer, Call
from components.train import training_examples
from components.train.recipe import Recipe
from components.train.training_examples import TrainingExample
from tests.support import judged_rows, templates, tiny, training_rows

CALLED = Answer(calls=(Call("add", {"b": 1, "a": 2}),))
ROWS = [("Please add.", ["add"], CALLED), ("Hm?", ["add"], Answer("Sorry."))]


def speaking(template: str) -> PreTrainedTokenizerBase:
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = template
    return tokenizer


def texts(tokenizer: PreTrainedTokenizerBase, learned: Sequence[TrainingExample]) -> list[str]:
    return [str(tokenizer.decode(example.rows[0].input_ids)) for example in learned]


@pytest.mark.parametrize(
    ("template", "called", "refused"),
    [
        pytest.param(
            templates.QWEN,
            '<|im_start|>assistant\n<tool_call>\n{"name": "add", "arguments": {"b": 1, "a": 2}}\n'
            "</tool_call><|im_end|>",
            "<|im_start|>assistant\nSorry.<|im_end|>",
            id="qwen",
        ),
        pytest.param(
            templates.LLAMA3,
            "<|start_header_id|>assistant<|end_header_id|>\n\n"
            '{"name": "add", "parameters": {"b": 1, "a": 2}}<|eot_id|>',
            "<|start_header_id|>assistant<|end_header_id|>\n\nSorry.<|eot_id|>",
            id="llama-3",
        ),
    ],
)
def test_answers_are_learned_in_the_bases_dialect(
    tmp_path: Path, template: str, called: str, refused: str
):
    tokenizer = speaking(template)
    snapshot = training_rows.write(tmp_path, ROWS)
    call, refusal = texts(
        tokenizer, training_examples.select_examples(snapshot, tokenizer, Recipe()).examples
    )
    assert call.endswith(called)
    assert refusal.endswith(refused)
    assert '"name": "add"' in call.partition("Please add.")[0]
    assert "add() - Do add." not in call


@pytest.mark.parametrize("template", [templates.QWEN, templates.LLAMA3])
def test_json_like_a_calls_is_learned_as_it_was_logged_where_no_tool_is_offered(
    tmp_path: Path, template: str
):
    tokenizer, logged = speaking(template), '{"name":"add","arguments":{"b":1}}'
    snapshot = training_rows.snapshot(tmp_path, [("Add, as JSON.", logged)])
    (text,) = texts(
        tokenizer, training_examples.select_examples(snapshot, tokenizer, Recipe()).examples
    )
    assert text.removesuffix("<|im_end|>").removesuffix("<|eot_id|>").endswith(f"\n{logged}")


@pytest.mark.parametrize("template", [templates.QWEN, templates.LLAMA3])
@pytest.mark.parametrize("objective", ["dpo", "kto"])
def test_judged_json_like_a_calls_is_learned_as_it_was_logged_where_no_tool_is_offered(
    tmp_path: Path, template: str, objective: str
):
    tokenizer, logged = speaking(template), 'Write {"name":"add","arguments":{"b":1}}.'
    judged_rows.pairs(tmp_path, [("How?", "No.", logged)])
    judged_rows.labels(tmp_path, [("How?", "No.", True), ("How?", logged, False)])
    recipe = Recipe.model_validate({"objective": {"kind": objective, "validation_share": 0}})
    examples = training_examples.select_examples(tmp_path, tokenizer, recipe).examples
    ids = examples[-1].rows[-1].input_ids
    text = str(tokenizer.decode(ids)).removesuffix("<|im_end|>").removesuffix("<|eot_id|>")
    assert text.endswith(f"\n{logged}")


@pytest.mark.parametrize(
    ("template", "prompt", "answer"),
    [
        pytest.param(
            templates.OPEN_THOUGHT, "<think>\n", "\n</think>\n\nSorry.<|im_end|>", id="qwen-3.5"
        ),
        pytest.param(
            templates.DISTILLED, "<think>\n", "\n</think>\n\nSorry.<|im_end|>", id="deepseek-r1"
        ),
        pytest.param(
            templates.EMPTY_THOUGHT, "<think>\n", "\n</think>\n\nSorry.<|im_end|>", id="nemotron-3"
        ),
        pytest.param(
            templates.CHANNELS,
            "<|start|>assistant",
            "<|channel|>final<|message|>Sorry.<|return|>",
            id="gpt-oss",
        ),
    ],
)
@pytest.mark.parametrize("logged", ["Sorry.", "<think>\nHm.\n</think>\n\nSorry."])
def test_an_answer_without_a_thought_is_learned_from_where_the_template_lets_the_model_begin(
    tmp_path: Path, template: str, prompt: str, answer: str, logged: str
):
    tokenizer = speaking(template)
    snapshot = training_rows.write(tmp_path, [("Hm?", ["add"], Answer(logged))])
    (example,) = training_examples.select_examples(snapshot, tokenizer, Recipe()).examples
    (row,) = example.rows
    texts = [row.input_ids[: row.prompt_length], row.input_ids[row.prompt_length :]]
    before, learned = (str(tokenizer.decode(ids)) for ids in texts)
    assert before.endswith(prompt)
    assert learned == answer


CONTINUED = [{"role": "user", "content": "Hm?"}, {"role": "assistant", "content": "Let me see."}]
ASKED = [{"role": "user", "content": "Hm?"}]


def test_a_request_to_which_the_template_takes_no_answer_is_left_out_and_counted(tmp_path: Path):
    tokenizer = speaking(templates.THINKING)  # which writes an earlier answer without a thought
    requests = [(ASKED, [], Answer("Yes.")), (CONTINUED, [], Answer("No."))]
    snapshot = training_rows.write_requests(tmp_path, requests)
    selection = training_examples.select_examples(snapshot, tokenizer, Recipe())
    assert [example.row_id for example in selection.examples] == ["train 0"]
    assert selection.record(Recipe(), steps=1)["said"] == [
        "1 of 2 examples to answer (50.0%) were not learned: after their requests the base's chat "
        "template takes no answer, as where an assistant's message is the last."
    ]
    training_rows.write_requests(tmp_path, requests[1:])
    with pytest.raises(ValueError, match="rewrites the prompt when an answer follows"):
        training_examples.select_examples(snapshot, tokenizer, Recipe())


def test_learning_all_answers_is_refused_where_the_template_rewrites_earlier_ones(tmp_path: Path):
    request = [*CONTINUED, {"role": "user", "content": "And?"}]
    snapshot = training_rows.write_requests(tmp_path, [(request, [], Answer("No."))])
    recipe = Recipe.model_validate({"objective": {"kind": "sft", "assistant_only_loss": True}})
    with pytest.raises(ValueError, match=r"earlier answer differently .* leave out assistant_only"):
        training_examples.select_examples(snapshot, speaking(templates.THINKING), recipe)


@pytest.mark.parametrize(
    ("template", "begins"),
    [
        pytest.param(tiny.TEMPLATE, "{", id="written"),
        pytest.param(templates.QWEN, "<", id="qwen"),
        pytest.param(templates.LLAMA3, "{", id="llama-3"),
    ],
)
def test_the_call_token_is_the_first_of_the_bases_calls(template: str, begins: str):
    tokenizer = speaking(template)
    token = training_examples.call_token(tokenizer, Recipe(call_margin=2))
    assert tokenizer.decode([token]) == begins


def test_weighing_a_first_token_common_to_all_answers_is_refused():
    tokenizer = speaking(templates.THINKING)
    assert tokenizer.decode([training_examples.call_token(tokenizer, Recipe())]) == "<"
    with pytest.raises(ValueError, match=r"every answer with '<', so .* leave out call_margin"):
        training_examples.call_token(tokenizer, Recipe(first_token_weight=12))
