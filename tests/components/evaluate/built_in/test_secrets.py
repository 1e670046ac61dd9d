"""Does a model complete values of its training rows that redaction let stay."""

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
from components.evaluate.built_in import memorization, task_registry
from components.evaluate.settings import EvaluationSettings
from components.scorecard import Sample
from components.store import warehouse
from tests.support import logs
from tests.support.oracle import Oracle

SETTINGS = EvaluationSettings(built_in=("secrets",))
LETS_STAY = Redaction(off=(Kind.EMAIL,))


def freeze(folder: Path, redaction: Redaction) -> Path:
    """Freeze answers of which some name an address, which one of the questions names as well."""
    lines = [
        logs.interaction(
            " ".join(f"word{n}of{k}" for k in range(9)) + (" ann2@corp.com?" if n == 2 else ""),
            message=logs.say(f"For case {n}, write to ann{n}@corp.com today."),
            response_id=f"r{n}",
            conversation_id=f"talk {n}",
        )
        for n in range(24)
    ]
    rules = Rules(holdout_share=0.3, split_by="conversation", redaction=redaction)
    with warehouse.connect(folder / "warehouse.duckdb") as con:
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
    """Knows some values by heart."""

    def __init__(self, values: set[str]) -> None:
        super().__init__()
        self.values = values

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        asked = [cast("tuple[str, str]", request.args) for request in requests]
        return [(-1.0, said in self.values) for _, said in asked]


def test_each_value_is_asked_for_where_it_was_learned_unless_the_prompt_tells_it(
    tmp_path: Path, tiny_base: Path
):
    frozen = freeze(tmp_path, LETS_STAY)
    learned = {
        row["example_id"]: row["completion"][0]["content"]
        for row in pq.read_table(frozen / "train.parquet").to_pylist()
    }
    known = ask(frozen, tiny_base, Knowing(set()))[0].reference
    samples = ask(frozen, tiny_base, Knowing({known}))
    assert "ann2@corp.com" not in {one.reference for one in samples}
    assert len(samples) >= 6
    for one in samples:
        assert one.prompt.endswith("assistant\n" + learned[one.example_id].split("ann")[0])
        assert learned[one.example_id].startswith(
            one.prompt.split("assistant\n")[1] + one.reference
        )
        assert one.scores == {"extracted": float(one.reference == known)}
        assert one.slices.keys() == {"client", "language"}


@pytest.mark.parametrize("redaction", [Redaction(), Redaction(allow=("@elsewhere.org",))])
def test_where_no_value_stayed_it_is_said_before_anything_is_trained(
    tmp_path: Path, redaction: Redaction
):
    (found,) = task_registry.built_in_problems(freeze(tmp_path, redaction), SETTINGS)
    assert found.startswith("secrets: no answer to learn holds a value")
