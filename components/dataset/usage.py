"""What production's answers to a snapshot's holdout took in tokens."""

from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from components import warehouse
from components.costs import Usage
from components.warehouse import Connection

LOGGED = "as the logs say"
COUNTED = "counted by the base's tokenizer without a template's marks, since the logs don't say"


@dataclass(frozen=True, slots=True)
class _Said:
    requests: int
    input_tokens: float
    output_tokens: float


def production(con: Connection, snapshot: Path) -> Usage | None:
    """Give the mean tokens of the logged responses, or of the holdout's texts where none says.

    The texts are prompts as the base reads them and right answers, which may be corrected ones.

    Args:
        con: The warehouse.
        snapshot: A finished snapshot.

    Returns:
        ``None`` where neither the logs nor the snapshot has counts.
    """
    columns = ["interaction_ids", "prompt_tokens", "answer_tokens"]
    rows = pq.read_table(snapshot / "holdout.parquet", columns=columns).to_pylist()
    asked = sorted({one for row in rows for one in row["interaction_ids"]})
    (said,) = warehouse.read(con, "marts/production_usage", _Said, interaction_ids=asked)
    if said.requests:
        return Usage(said.input_tokens, said.output_tokens, said.requests, LOGGED)
    counted = [row for row in rows if None not in (row["prompt_tokens"], row["answer_tokens"])]
    if not counted:
        return None
    asking, answering = (
        sum(row[name] for row in counted) / len(counted)
        for name in ("prompt_tokens", "answer_tokens")
    )
    return Usage(asking, answering, len(counted), COUNTED)
