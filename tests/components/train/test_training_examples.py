"""A request and its answers become tokens of which only the answers are learned."""

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


def test_a_template_that_rewrites_the_prompt_is_refused(tokenizer: PreTrainedTokenizerBase):
    asked, answered = [{"role": "user", "content": "Hi"}], [{"role": "assistant", "content": "Yo"}]
    template = tokenizer.chat_template
    tokenizer.chat_template = "{{ messages | length }}{{ messages[-1]['content'] }}"
    try:
        with pytest.raises(ValueError, match="rewrites the prompt"):
            training_examples.tokenize_answer(tokenizer, asked, answered, 1.0)
    finally:
        tokenizer.chat_template = template
