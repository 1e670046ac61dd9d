"""Rows become tokens of which only the answer is learned."""

from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from components.schema import Answer, Call
from components.train import training_examples
from components.train.recipe import Dpo, Recipe
from components.train.training_examples import NoExamplesError
from tests.support import judged_rows, tiny, training_rows


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(tiny.build(tmp_path_factory.mktemp("base")))


def test_rows_that_are_too_long_are_left_out(tokenizer: PreTrainedTokenizerBase, tmp_path: Path):
    snapshot = training_rows.snapshot(tmp_path, [("short", "a"), ("long " * 99, "b")])
    (kept,) = training_examples.select_examples(
        snapshot, tokenizer, Recipe(max_length=100)
    ).examples
    assert "short" in tokenizer.decode(kept.rows[0].input_ids)


def test_a_snapshot_without_a_fitting_row_is_refused_with_its_shortest_length(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path
):
    snapshot = training_rows.snapshot(tmp_path, [("long " * 99, "b")])
    with pytest.raises(
        ValueError, match=r"none of its 1 examples to answer fits into max_length 100 \(the"
    ):
        training_examples.select_examples(snapshot, tokenizer, Recipe(max_length=100))


def test_a_snapshot_all_of_whose_pairs_are_held_out_is_refused_with_the_reason(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path
):
    recipe = Recipe(objective=Dpo(validation_share=0.49))
    refusals: list[str] = []
    for number in range(9):
        snapshot = judged_rows.pairs(tmp_path, [(f"Number {number}?", "Yes.", "No.")])
        try:
            assert len(training_examples.select_examples(snapshot, tokenizer, recipe).examples) == 1
        except NoExamplesError as refused:
            refusals.append(str(refused))
    assert refusals
    assert all("a rejected answer are held out, so none is learned" in why for why in refusals)


NONE_FITS = Answer("Sorry.")
CALLS = [(f"Please {name}.", [name], Answer(calls=(Call(name, {}),))) for name in ("add", "cut")]


IN_VAIN = [(f"Hm {number}?", ["add"], NONE_FITS) for number in range(3)]


def test_the_selection_counts_rows_in_sentences(tokenizer: PreTrainedTokenizerBase, tmp_path: Path):
    long = [("long " * 199, ["add"], Answer("No."))] * 2
    snapshot = training_rows.write(tmp_path, [*CALLS, *IN_VAIN, *long])
    recipe = Recipe(max_length=200, irrelevant_share=1.0)
    selection = training_examples.select_examples(snapshot, tokenizer, recipe)
    assert (selection.rows, selection.too_long, selection.made, len(selection.examples)) == (
        7,
        2,
        2,
        7,
    )
    assert selection.record(recipe, steps=2)["said"] == [
        "2 of 7 examples to answer (28.6%) are longer than max_length 200 tokens and were not "
        "learned.",
        "Besides, 2 examples were made (irrelevant_share, canaries).",
    ]


@pytest.mark.parametrize(
    ("max_length", "sentences"),
    [
        pytest.param(200, ["2 of 7 ", "Only 4 of the 5 examples that fit were learned"], id="long"),
        pytest.param(9999, ["Only 4 of the 7 examples that fit were learned"], id="all fit"),
    ],
)
def test_a_training_that_ends_before_it_has_seen_all_rows_does_not_claim_them(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path, max_length: int, sentences: list[str]
):
    long = [("long " * 199, ["add"], Answer("No."))] * 2
    snapshot = training_rows.write(tmp_path, [*CALLS, *IN_VAIN, *long])
    recipe = Recipe(max_length=max_length)
    selection = training_examples.select_examples(snapshot, tokenizer, recipe)
    record = selection.record(recipe, steps=1)
    assert record["seen"] == 4
    assert isinstance(record["said"], list)
    for sentence, begins in zip(record["said"], sentences, strict=True):
        assert str(sentence).startswith(begins)


def test_a_share_without_effect_is_reported(tokenizer: PreTrainedTokenizerBase, tmp_path: Path):
    snapshot = training_rows.write(
        tmp_path, [*CALLS, ("Hm?", ["add"], Answer("Your user ID, please?"))]
    )
    recipe = Recipe(irrelevant_share=0.5)
    selection = training_examples.select_examples(snapshot, tokenizer, recipe)
    assert len(selection.examples) == 3
    (rows_said, off) = selection.record(recipe, steps=1)["said"]  # pyright: ignore[reportGeneralTypeIssues]
    assert rows_said == "All 3 examples to answer were learned: none is longer than max_length."
    assert str(off).startswith("irrelevant_share 0.5 did nothing, since the log doesn't show what")


def test_made_requests_are_learned_with_their_answer(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path
):
    snapshot = training_rows.write(tmp_path, [*CALLS, *IN_VAIN])
    logged = training_examples.select_examples(snapshot, tokenizer, Recipe()).examples
    learned = training_examples.select_examples(
        snapshot, tokenizer, Recipe(irrelevant_share=1.0)
    ).examples
    texts = [str(tokenizer.decode(example.rows[0].input_ids)) for example in learned]
    assert learned[:5] == logged
    assert len(texts) == 7
    assert all(text.endswith("Sorry.<|im_end|>") for text in texts[5:])
    assert "cut() - Do cut." in next(text for text in texts[5:] if "Please add." in text)


def test_made_rows_have_the_weight_of_their_row(tokenizer: PreTrainedTokenizerBase, tmp_path: Path):
    snapshot = training_rows.write(tmp_path, [*CALLS, *IN_VAIN], weight=0.5)
    learned = training_examples.select_examples(
        snapshot, tokenizer, Recipe(irrelevant_share=1.0)
    ).examples
    assert [example.rows[0].weight for example in learned] == [0.5] * 7


def test_another_requests_tool_is_offered_if_the_recipe_has_distractors(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path
):
    snapshot = training_rows.write(tmp_path, CALLS)
    learned = training_examples.select_examples(
        snapshot, tokenizer, Recipe(distractor_share=1.0)
    ).examples
    texts = [str(tokenizer.decode(example.rows[0].input_ids)) for example in learned]
    assert all("add() - Do add." in text and "cut() - Do cut." in text for text in texts)


def test_only_a_request_with_tools_may_be_answered_by_a_call(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path
):
    snapshot = training_rows.write(tmp_path, [*CALLS, ("Hi", [], NONE_FITS)])
    learned = training_examples.select_examples(snapshot, tokenizer, Recipe()).examples
    assert [example.rows[0].may_call for example in learned] == [True, True, False]
