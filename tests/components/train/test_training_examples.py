"""A request and its answers become tokens of which only the answers are learned."""

from contextlib import nullcontext

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from components.train import training_examples
from tests.support import tiny


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(tiny.build(tmp_path_factory.mktemp("base")))


def test_the_answer_ends_with_the_token_that_stops_the_model(
    tokenizer: PreTrainedTokenizerBase,
):
    asked, answered = [{"role": "user", "content": "Hi"}], [{"role": "assistant", "content": "Yo"}]
    tokens = training_examples.tokenize_answer(tokenizer, asked, answered, 1.0)
    learned = tokens.input_ids[-tokens.answer_length :]
    assert tokenizer.decode(learned) == "Yo<|im_end|>"
    before = tokenizer.decode(tokens.input_ids[: -tokens.answer_length])
    assert before == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize(
    ("ends", "message"),
    [
        pytest.param([0, 2], None, id="one of them"),
        pytest.param(
            [0], r"answer with '<\|im_end\|>' \(token 2\), .* '<\|endoftext\|>'", id="other"
        ),
        pytest.param([], "the base ends it with nothing", id="none"),
    ],
)
def test_a_base_whose_answers_would_not_end_is_refused(
    tokenizer: PreTrainedTokenizerBase, ends: list[int], message: str | None
):
    with pytest.raises(ValueError, match=message) if message else nullcontext():
        training_examples.require_end_token(tokenizer, ends)


def test_a_base_whose_template_leaves_out_an_answers_text_is_refused():
    parted = tiny.tokenizer()
    parted.chat_template = tiny.TEMPLATE.replace(
        "{{ message['content'] }}",
        "{% for part in message['content'] %}{{ part['text'] }}{% endfor %}",  # as SmolVLM's
    )
    with pytest.raises(ValueError, match="leaves out an answer's text"):
        training_examples.require_end_token(parted, [2])


def test_a_greeting_that_nobody_asked_for_is_no_answer_to_learn(
    tokenizer: PreTrainedTokenizerBase,
):
    talk = [
        {"role": "assistant", "content": "Welcome!"},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Yo"},
        {"role": "user", "content": "Bye"},
    ]
    template = tokenizer.chat_template
    # As Qwen's: the first message may be the system's.
    first = (
        "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nHelp.<|im_end|>\n{% endif %}"
    )
    tokenizer.chat_template = f"{first}{template}"
    try:
        tokens = training_examples.tokenize_answer(
            tokenizer, talk, [{"role": "assistant", "content": "Ciao"}], 1.0, every_answer=True
        )
    finally:
        tokenizer.chat_template = template
    learned = [tokenizer.decode(tokens.input_ids[a:b]) for a, b in tokens.learned]
    assert learned == ["Yo<|im_end|>", "Ciao<|im_end|>"]


def test_a_template_that_rewrites_the_prompt_is_refused(tokenizer: PreTrainedTokenizerBase):
    asked, answered = [{"role": "user", "content": "Hi"}], [{"role": "assistant", "content": "Yo"}]
    template = tokenizer.chat_template
    tokenizer.chat_template = "{{ messages | length }}{{ messages[-1]['content'] }}"
    try:
        with pytest.raises(ValueError, match="rewrites the prompt"):
            training_examples.tokenize_answer(tokenizer, asked, answered, 1.0)
    finally:
        tokenizer.chat_template = template
