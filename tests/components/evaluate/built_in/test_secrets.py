"""Whether a model completes values of its training rows that redaction left."""

from pathlib import Path
from typing import cast

import pyarrow.parquet as pq
import pytest
from lm_eval.api.instance import Instance
from transformers import AutoTokenizer

from components.curate import curate_workload
from components.curate.redaction import redactor
from components.curate.redaction.patterns import Kind
from components.curate.settings import Redaction, Rules
from components.dataset import freeze_snapshot
from components.evaluate import score_conditions
from components.evaluate.built_in import memorization
from components.evaluate.settings import EvaluationSettings
from components.scorecard import Sample
from tests.support import logs, templates, warehouses
from tests.support.oracle import Oracle

SETTINGS = EvaluationSettings(built_in=("secrets",))
LETS_STAY = Redaction(off=(Kind.EMAIL,))


def freeze(
    folder: Path,
    redaction: Redaction,
    answer: str = "For case {n}, write to ann{n}@corp.com today.",
) -> Path:
    """Freeze answers with addresses, one of which is also in its question."""
    lines = [
        logs.interaction(
            " ".join(f"word{n}of{k}" for k in range(9)) + (" ann2@corp.com?" if n == 2 else ""),
            message=logs.say(answer.replace("{n}", str(n))),
            response_id=f"r{n}",
            conversation_id=f"talk {n}",
        )
        for n in range(24)
    ]
    rules = Rules(holdout_share=0.3, split_by="conversation", redaction=redaction)
    with warehouses.connect(folder / "warehouse.duckdb") as con:
        logs.load(con, logs.write(folder / "log.jsonl", lines), now=logs.NOW)
        curate_workload.curate(con, "weather", rules, now=logs.NOW)
        find = redactor.unredacted_finder(redaction)
        frozen = freeze_snapshot.freeze(
            con, folder, "weather", rules=rules, now=logs.NOW, staying=find
        )
    return frozen.path


def ask(frozen: Path, base: Path, oracle: Oracle) -> list[Sample]:
    return memorization.run_secrets(
        oracle, memorization.secret_documents(frozen, AutoTokenizer.from_pretrained(base))
    )


class Knowing(Oracle):
    """An oracle that memorized some values."""

    def __init__(self, values: set[str]) -> None:
        super().__init__()
        self.values = values

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        asked = [cast("tuple[str, str]", request.args) for request in requests]
        return [(-1.0, continuation in self.values) for _, continuation in asked]


def test_each_value_is_asked_for_in_its_row_unless_the_prompt_contains_it(
    tmp_path: Path, tiny_base: Path
):
    frozen = freeze(tmp_path, LETS_STAY)
    learned = {
        row["example_id"]: row["completion"][0]["content"]
        for row in pq.read_table(frozen / "train.parquet").to_pylist()
    }
    known = ask(frozen, tiny_base, Knowing(set()))[0].reference
    samples = ask(frozen, tiny_base, Knowing({known}))
    assert "ann2@corp.com" not in {sample.reference for sample in samples}
    assert len(samples) >= 6
    for sample in samples:
        assert sample.prompt.endswith("assistant\n" + learned[sample.example_id].split("ann")[0])
        assert learned[sample.example_id].startswith(
            sample.prompt.split("assistant\n")[1] + sample.reference
        )
        assert sample.scores == {"extracted": float(sample.reference == known)}
        assert sample.slices.keys() == {"client", "language"}


CALL = '{"name":"mail","arguments":{"n":1}}'


def test_a_value_is_asked_for_after_the_text_that_was_learned(tmp_path: Path, tiny_base: Path):
    frozen = freeze(tmp_path, LETS_STAY, "Send " + CALL + " to ann{n}@corp.com.")
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    tokenizer.chat_template = templates.QWEN
    documents = memorization.secret_documents(frozen, tokenizer)
    assert {document["prompt"].split("assistant\n")[1] for document in documents} == {
        f"Send {CALL} to "
    }


@pytest.mark.parametrize("redaction", [Redaction(), Redaction(allow=("@elsewhere.org",))])
@pytest.mark.slow
def test_a_snapshot_without_unredacted_values_is_reported_before_training(
    tmp_path: Path, redaction: Redaction
):
    (problem,) = score_conditions.built_in_problems(freeze(tmp_path, redaction), SETTINGS)
    assert problem.startswith("secrets: no answer to learn holds a value")
