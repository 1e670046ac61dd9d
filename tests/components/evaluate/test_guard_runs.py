"""lm-eval's tasks on our documents: prompts, scores and refusals."""

import json
from pathlib import Path

import pytest

from components.evaluate import guard_runs, guards
from components.evaluate.guard_runs import GuardError
from components.evaluate.settings import GuardTask
from components.scorecard import Sample
from tests.support import guard_files
from tests.support.guard_files import SUMS, sums, written
from tests.support.oracle import Oracle


def right(prompt: str, answer: str) -> float:
    """Score the right sum as the likeliest."""
    asked = prompt.removeprefix("What is ").rstrip("?")
    return 0.0 if answer.strip() == str(sum(map(int, asked.split("+")))) else -9.0


def ask(guard: GuardTask, lm: Oracle) -> list[Sample]:
    return guard_runs.run_guard(lm, guard_runs.build_guard(guard))


def scores(samples: list[Sample]) -> list[float | None]:
    return [next(iter(sample.scores.values())) for sample in samples]


def test_the_likeliest_right_choice_scores_one(tmp_path: Path):
    samples = ask(sums(tmp_path), Oracle(likely=right))
    assert scores(samples) == [1.0] * 8
    assert (samples[2].request, samples[2].output, samples[2].reference) == (
        "What is 3 + 3?",
        "6",
        "6",
    )
    assert (
        len({sample.cluster_id for sample in samples})
        == len({sample.doc_hash for sample in samples})
        == 8
    )


def test_documents_of_one_passage_are_a_cluster(tmp_path: Path):
    """Taken as independent, they passed a guard that lost its whole margin four times as often."""
    passages = [row | {"passage": f"text {n // 3}"} for n, row in enumerate(SUMS)]
    guard_files.documents(tmp_path / "sums.jsonl", passages)
    alone, together = (
        ask(sums(tmp_path), Oracle()),
        ask(sums(tmp_path, cluster="passage"), Oracle()),
    )
    assert len({sample.cluster_id for sample in alone}) == 8
    passage = {sample.request: f"text {n // 3}" for n, sample in enumerate(alone)}
    assert len({sample.cluster_id for sample in together}) == 3
    assert len({(sample.cluster_id, passage[sample.request]) for sample in together}) == 3
    assert guards.guard_conditions(sums(tmp_path, cluster="passage")) == {
        **guards.guard_conditions(sums(tmp_path)),
        "cluster": "passage",
    }


def test_a_document_without_its_cluster_is_refused(tmp_path: Path):
    with pytest.raises(GuardError, match="document 0: it has no passage, which is its cluster"):
        ask(sums(tmp_path, cluster="passage"), Oracle())


def test_a_wrong_choice_is_shown_as_the_answer(tmp_path: Path):
    samples = ask(sums(tmp_path), Oracle(likely=lambda _, answer: float("none" in answer)))
    assert scores(samples) == [0.0] * 8
    assert {sample.output for sample in samples} == {"none"}


def test_acc_norm_divides_likelihoods_by_length(tmp_path: Path):
    def likely(_: str, answer: str) -> float:
        return -2.9 if answer == " none" else -1.0

    (sample,) = ask(sums(tmp_path, metric="acc_norm", limit=1), Oracle(likely=likely))
    assert (sample.scores, sample.output) == ({"acc_norm": 0.0}, "none")
    (sample,) = ask(sums(tmp_path, limit=1), Oracle(likely=likely))
    assert (sample.scores, sample.output) == ({"acc": 1.0}, sample.reference)


def test_an_answer_is_extracted_by_the_configured_filter(tmp_path: Path):
    def write(prompt: str) -> str:
        return f"{2 * int(prompt.split()[0])} I think"

    samples = ask(written(tmp_path, filter="first-word"), Oracle(write=write))
    assert scores(samples) == [1.0] * 8
    assert samples[0].output == "2"
    assert scores(ask(written(tmp_path, filter="as-it-is"), Oracle(write=write))) == [0.0] * 8


def test_a_limit_draws_the_same_documents_and_a_higher_one_only_adds(tmp_path: Path):
    few = {sample.request for sample in ask(sums(tmp_path, limit=3), Oracle())}
    more = {sample.request for sample in ask(sums(tmp_path, limit=5), Oracle())}
    assert (len(few), len(more)) == (3, 5)
    assert few < more
    guard_files.documents(tmp_path / "sums.jsonl", SUMS[::-1])
    assert {sample.request for sample in ask(sums(tmp_path, limit=3), Oracle())} == few


def test_duplicate_documents_are_asked_once(tmp_path: Path):
    guard_files.documents(tmp_path / "sums.jsonl", [*SUMS, SUMS[0]])
    assert len(ask(sums(tmp_path), Oracle())) == 8


def test_solved_examples_precede_a_question_and_are_not_asked_themselves(tmp_path: Path):
    shown = guard_files.documents(
        tmp_path / "shown.jsonl",
        [*SUMS[:4], {"question": "50 + 50", "choices": ["100", "1", "2"], "right": 0}],
    )
    lm = Oracle()
    first, *_ = ask(sums(tmp_path, num_fewshot=1, examples=shown), lm)
    assert first.prompt == "What is 50 + 50? 100\n\nWhat is 1 + 1?"
    assert first.request == "What is 1 + 1?"
    assert all(prompt.startswith("What is 50 + 50? 100\n\n") for prompt in lm.prompts)


def test_examples_that_are_also_documents_do_not_count(tmp_path: Path):
    asked = guard_files.documents(tmp_path / "sums.jsonl")
    with pytest.raises(GuardError, match="has 0 documents that are not asked"):
        guard_runs.build_guard(sums(tmp_path, num_fewshot=1, examples=asked))


def test_a_built_in_definition_renders_its_own_prompts(tmp_path: Path):
    row = {"goal": "Boil water", "sol1": "Heat it.", "sol2": "Cool it.", "label": 0}
    data = guard_files.documents(tmp_path / "piqa.jsonl", [row])
    guard = GuardTask(task="piqa", data=data, metric="acc_norm")
    lm = Oracle(likely=lambda _, answer: -float(answer != " Heat it."))
    (sample,) = ask(guard, lm)
    assert sample.prompt == "Question: Boil water\nAnswer:"
    assert (sample.output, sample.scores) == ("Heat it.", {"acc_norm": 1.0})


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        pytest.param({"question": "1", "right": 0}, "document 2: has no choices", id="no-column"),
        pytest.param(
            {**SUMS[0], "right": 3}, "answer 3 is not one of its 3 choices", id="no-choice"
        ),
        pytest.param({**SUMS[0], "right": -1}, "answer -1 is not one of its 3", id="below-zero"),
    ],
)
def test_a_document_that_does_not_fit_is_reported_and_not_scored_as_wrong(
    tmp_path: Path, row: dict[str, object], sentence: str
):
    guard_files.documents(tmp_path / "sums.jsonl", [*SUMS[:2], row])
    with pytest.raises(GuardError, match=sentence):
        guard_runs.build_guard(sums(tmp_path))


@pytest.mark.parametrize(
    ("metric", "sentence"),
    [
        pytest.param("f1", "f1 is not a mean of the documents' scores", id="no-mean"),
        pytest.param("acc_per_byte", "has no metric acc_per_byte", id="unknown"),
    ],
)
def test_an_incomparable_metric_is_refused(tmp_path: Path, metric: str, sentence: str):
    guard = sums(tmp_path, metric=metric)
    with_f1 = "metric_list:\n  - {metric: f1, aggregation: f1, higher_is_better: true}"
    (tmp_path / "sums.yaml").write_text(guard_files.CHOICE.replace("metric_list:", with_f1))
    with pytest.raises(GuardError, match=sentence):
        guard_runs.build_guard(guard)


def test_answers_drawn_at_random_are_refused(tmp_path: Path):
    guard = written(tmp_path, filter="as-it-is")
    text = guard_files.WRITTEN.replace("max_gen_toks: 4", "do_sample: true, temperature: 0.7")
    (tmp_path / "written.yaml").write_text(text)
    with pytest.raises(GuardError, match="samples its answers at random"):
        guard_runs.build_guard(guard)


def test_mistakes_of_several_tasks_are_reported_together(tmp_path: Path):
    guard_files.documents(tmp_path / "bad.jsonl", [{"question": "1 + 1"}])
    bad = written(tmp_path, data=tmp_path / "bad.jsonl", filter="as-it-is")
    empty = sums(tmp_path, data=guard_files.documents(tmp_path / "none.jsonl", [{"a": 1}]))
    with pytest.raises(GuardError) as caught:
        guard_runs.prepare_guards([empty, bad])
    assert [mistake.partition(":")[0] for mistake in caught.value.mistakes] == ["sums", "written"]


def scored(folder: Path, body: str) -> GuardTask:
    """Make the sums a task that a function of its own scores."""
    (folder / "scoring.py").write_text(f"def process_results(doc, results): {body}\n")
    text = guard_files.CHOICE + "process_results: !function scoring.process_results\n"
    (folder / "sums.yaml").write_text(text)
    return sums(folder, limit=2)


@pytest.mark.parametrize("score", ["float('nan')", "float('inf')", "None", "'wrong'", "[1.0]"])
def test_a_score_that_is_not_a_finite_number_is_not_measured(tmp_path: Path, score: str):
    guard = scored(tmp_path, f"return {{'acc': {score}}}")
    assert scores(ask(guard, Oracle())) == [None, None]


def test_what_a_tasks_own_function_returns_besides_scores_is_left_out(tmp_path: Path):
    guard = scored(tmp_path, "return {'acc': True, 'answer': 'B', 'why': None}")
    samples = ask(guard, Oracle())
    assert scores(samples) == [1.0, 1.0]
    assert samples[0].scores.keys() == {"acc"}


def test_an_error_of_a_tasks_own_function_names_the_task_and_the_document(tmp_path: Path):
    guard = scored(tmp_path, "return {'acc': {}['missing']}")
    with pytest.raises(GuardError, match=r"sums: scoring document 0: KeyError: 'missing'"):
        ask(guard, Oracle())


def processed(folder: Path, function: str, key: str = "process_docs") -> GuardTask:
    """Make the sums a task whose documents or prompts are made by a function of its own."""
    (folder / "making.py").write_text(f"import random\n\n{function}")
    kept = guard_files.CHOICE.replace('doc_to_text: "What is {{question}}?"\n', "")
    text = kept if key == "doc_to_text" else guard_files.CHOICE
    (folder / "sums.yaml").write_text(text + f"{key}: !function making.make\n")
    return sums(folder)


SHUFFLING = """
def make(documents):
    def shuffle(document):
        choices = random.sample(document["choices"], 3)
        return {"choices": choices, "right": choices.index(document["choices"][0])}

    return documents.map(shuffle)
"""


def test_choices_that_a_task_shuffles_are_asked_and_scored_in_one_order_for_all_models(
    tmp_path: Path,
):
    """As GPQA's, which lm-eval shuffles again at each reading."""
    first, second = (ask(processed(tmp_path, SHUFFLING), Oracle(likely=right)) for _ in range(2))
    assert scores(first) == [1.0] * 8
    assert [sample.doc_hash for sample in first] == [sample.doc_hash for sample in second]


def test_documents_that_a_task_makes_equal_are_asked_once(tmp_path: Path):
    """The gate compares no two models on a task that has a document twice."""
    rows = [{**row, "id": number} for number, row in enumerate([*SUMS, SUMS[0]])]
    guard_files.documents(tmp_path / "sums.jsonl", rows)
    forgetting = "def make(documents): return documents.remove_columns('id')\n"
    assert len(ask(processed(tmp_path, forgetting), Oracle())) == 8


def test_a_prompt_that_a_task_draws_at_random_is_refused(tmp_path: Path):
    drawing = "def make(document): return str(random.random())\n"
    with pytest.raises(GuardError, match="document 0: its prompt is drawn at random"):
        guard_runs.build_guard(processed(tmp_path, drawing, "doc_to_text"))


def test_an_invalid_line_is_reported(tmp_path: Path):
    (tmp_path / "sums.jsonl").write_text(json.dumps(SUMS[0]) + "\n[1]\n")
    with pytest.raises(GuardError, match="line 2: expected a JSON object"):
        guard_runs.build_guard(sums(tmp_path))
