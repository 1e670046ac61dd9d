"""A model that copies scores the same on real values and on their surrogates."""

import re
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from components.evaluate import holdout_task, lm_eval_tasks
from components.schema import Json
from tests.benchmarks import surrogates
from tests.support import logs, warehouses
from tests.support.oracle import Oracle

PEOPLE = ("sofia.kim", "jonas", "aiko_tanaka", "maria-jose", "liam77", "emma", "noah.b", "olga")
CARDS = ("4111 1111 1111 1111", "378282246310005", "5500005555555559", "6011-1111-1111-1117")


def line(number: int) -> dict[str, Json]:
    mail, card = f"{PEOPLE[number]}@acme.com", CARDS[number % 4]
    thing = ("umbrella", "bicycle", "piano", "ticket", "kettle", "lamp", "carpet", "mirror")[number]
    pay: Json = {"to": mail, "card": re.sub("[ -]", "", card)}
    return logs.interaction(
        f"Please charge {card} for the {thing} and send the receipt to {mail.title()}",
        message=logs.call("pay", pay),
        tools=[logs.tool("pay")],
        response_id=str(number),
        conversation_id=str(number),
    )


def copied(prompt: str) -> str:
    """Answer like a model that copies cards of sixteen digits and addresses without a hyphen."""
    card = re.findall(r"charge ((?:[0-9]{4}[ -]?){4})", prompt)
    mail = re.findall(r"receipt to ([\w.]+@\w+\.\w+)", prompt)
    digits = re.sub("[ -]", "", card[-1]) if card else ""
    to = mail[-1].lower() if mail else ""
    return f'{{"name": "pay", "arguments": {{"to": "{to}", "card": "{digits}"}}}}'


@pytest.mark.slow
def test_surrogates_score_like_real_values_whatever_is_drawn(
    tmp_path: Path, tiny_base: Path
) -> None:
    log = logs.write(tmp_path / "log.jsonl", [line(number) for number in range(8)])
    with warehouses.connect(tmp_path / "w.duckdb") as con:
        logs.load(con, log, now=logs.NOW)
        folders = {
            arm: surrogates.freeze(con, tmp_path / arm, "weather", redaction, holdout_share=0.7)
            for arm, redaction in surrogates.arms(2).items()
        }
    assert surrogates.keep_common(folders, 100) > 3
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    by_arm: dict[str, list[float | None]] = {}
    for arm, folder in folders.items():
        holdout = holdout_task.read_side(folder, tokenizer, None)
        samples = lm_eval_tasks.evaluate_holdout(Oracle(copied), holdout, 64, "")
        by_thing = sorted(
            samples, key=lambda sample: re.sub(".*for the (\\w+).*", r"\1", sample.request)
        )
        by_arm[arm] = [sample.scores["name_and_arguments"] for sample in by_thing]
    real = by_arm.pop("real values")
    easier = by_arm.pop("placeholders")
    assert all(drawn == real for drawn in by_arm.values())
    assert 0 < sum(score or 0 for score in real) < len(real)
    assert easier != real
