"""Rows become tokens of which only the answer is learned; those that begin alike are together."""

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from components.schema import Answer, Call
from components.train import examples
from components.train.recipe import Recipe
from tests import tiny
from tests.train import rows


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(tiny.build(tmp_path_factory.mktemp("base")))


def test_the_answer_ends_with_the_token_that_stops_the_model(
    tokenizer: PreTrainedTokenizerBase,
):
    asked, answered = [{"role": "user", "content": "Hi"}], [{"role": "assistant", "content": "Yo"}]
    tokens = examples.tokenize(tokenizer, asked, answered, 1.0)
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
            examples.tokenize(tokenizer, asked, answered, 1.0)
    finally:
        tokenizer.chat_template = template


def test_rows_that_are_too_long_are_left_out(tokenizer: PreTrainedTokenizerBase, tmp_path: Path):
    snapshot = rows.snapshot(tmp_path, [("short", "a"), ("long " * 99, "b")])
    (kept,) = examples.read(snapshot, tokenizer, Recipe(max_length=100))
    assert "short" in tokenizer.decode(kept.input_ids)


def test_a_snapshot_of_which_nothing_fits_says_how_long_its_rows_are(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path
):
    snapshot = rows.snapshot(tmp_path, [("long " * 99, "b")])
    with pytest.raises(ValueError, match=r"none of its 1 examples fits into max_length 100 \(the"):
        examples.read(snapshot, tokenizer, Recipe(max_length=100))


NONE_FITS = Answer("Sorry.")
CALLS = [(f"Please {name}.", [name], Answer(calls=(Call(name, {}),))) for name in ("add", "cut")]


def test_made_requests_are_learned_with_their_answer(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path
):
    snapshot = rows.write(tmp_path, [*CALLS, ("Hm?", ["add"], NONE_FITS)])
    logged = examples.read(snapshot, tokenizer, Recipe())
    learned = examples.read(snapshot, tokenizer, Recipe(irrelevant_share=1.0))
    texts = [str(tokenizer.decode(tokens.input_ids)) for tokens in learned]
    assert learned[:3] == logged
    assert len(texts) == 5
    assert all(text.endswith("Sorry.<|im_end|>") for text in texts[3:])
    assert "cut() - Do cut." in next(text for text in texts[3:] if "Please add." in text)


def test_a_row_weighs_what_the_snapshot_says_and_those_made_of_it_too(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path
):
    snapshot = rows.write(tmp_path, [*CALLS, ("Hm?", ["add"], NONE_FITS)], weight=0.5)
    learned = examples.read(snapshot, tokenizer, Recipe(irrelevant_share=1.0))
    assert [tokens.weight for tokens in learned] == [0.5] * 5


def test_the_tool_of_another_request_is_offered_besides_where_the_recipe_wants_it(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path
):
    snapshot = rows.write(tmp_path, CALLS)
    learned = examples.read(snapshot, tokenizer, Recipe(distractor_share=1.0))
    texts = [str(tokenizer.decode(tokens.input_ids)) for tokens in learned]
    assert all("add() - Do add." in text and "cut() - Do cut." in text for text in texts)


def test_only_a_request_with_tools_may_be_answered_by_a_call(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path
):
    snapshot = rows.write(tmp_path, [*CALLS, ("Hi", [], NONE_FITS)])
    learned = examples.read(snapshot, tokenizer, Recipe())
    assert [tokens.may_call for tokens in learned] == [True, True, False]


ROWS = st.lists(st.lists(st.integers(1, 3), min_size=1, max_size=5), max_size=40)


@given(ROWS, st.integers(1, 9), st.integers(0, 3))
def test_every_row_is_drawn_once_in_an_order_that_the_seed_repeats(
    rows: list[list[int]], batch_size: int, seed: int
):
    order = examples.in_order(rows, batch_size, seed)
    assert sorted(order) == list(range(len(rows)))
    assert order == examples.in_order(rows, batch_size, seed)


def test_a_batch_holds_rows_that_begin_alike_and_several_kinds_of_them():
    kinds = 16
    rows = [[row % kinds] * 20 + [row] for row in range(6 * kinds)]
    order = examples.in_order(rows, 12, seed=1)
    batches = [order[start : start + 12] for start in range(0, len(order), 12)]
    for batch in batches:
        counts = Counter(row % kinds for row in batch)
        assert len(counts) > 1
        assert all(count % 3 == 0 for count in counts.values())


def test_other_seeds_give_other_orders():
    rows = [[row, *range(20)] for row in range(20)]
    assert len({tuple(examples.in_order(rows, 4, seed)) for seed in range(5)}) == 5
