"""A model that copies scores the same on real values and on whatever was drawn for them."""

import re
from pathlib import Path

from transformers import AutoTokenizer

from components.evaluate import holdout_task, lm_eval_tasks
from components.schema import Json
from components.store import warehouse
from tests.benchmarks import surrogates
from tests.support import logs
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
    """Answer as a model that copies cards of sixteen digits and addresses without a hyphen."""
    card = re.findall(r"charge ((?:[0-9]{4}[ -]?){4})", prompt)
    mail = re.findall(r"receipt to ([\w.]+@\w+\.\w+)", prompt)
    digits = re.sub("[ -]", "", card[-1]) if card else ""
    to = mail[-1].lower() if mail else ""
    return f'{{"name": "pay", "arguments": {{"to": "{to}", "card": "{digits}"}}}}'


def test_scores_do_not_depend_on_the_draw_and_are_those_of_real_values(
    tmp_path: Path, tiny_base: Path
) -> None:
    log = logs.write(tmp_path / "log.jsonl", [line(number) for number in range(8)])
    with warehouse.connect(tmp_path / "w.duckdb") as con:
        logs.load(con, log, now=logs.NOW)
        folders = {
            arm: surrogates.freeze(con, tmp_path / arm, "weather", redaction, holdout_share=0.7)
            for arm, redaction in surrogates.arms(2).items()
        }
    assert surrogates.keep_common(folders, 100) > 3
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    found: dict[str, list[float | None]] = {}
    for arm, folder in folders.items():
        holdout = holdout_task.read_side(folder, tokenizer, None)
        samples = lm_eval_tasks.evaluate_holdout(Oracle(copied), holdout, 64, "")
        by_thing = sorted(samples, key=lambda one: re.sub(".*for the (\\w+).*", r"\1", one.request))
        found[arm] = [one.scores["name_and_arguments"] for one in by_thing]
    real = found.pop("real values")
    easier = found.pop("placeholders")
    assert all(drawn == real for drawn in found.values())
    assert 0 < sum(one or 0 for one in real) < len(real)
    assert easier != real
