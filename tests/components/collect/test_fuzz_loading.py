from pathlib import Path

import pytest

from components.collect.source import Defaults, Input, Source
from components.collect.sources import feedback, fivekey
from components.schema import Json
from tests.support import logs, mutation, warehouses
from tests.support.samples import SAMPLES, SOURCES, of_its_own_span

DEFAULTS = Defaults(workload_id="support", client_id="shop")
MUTANTS = 2_000
CANONICAL: list[dict[str, Json]] = [
    logs.interaction(tools=[logs.WEATHER], metadata={"acceptable": []}),
    logs.feedback("correction", logs.say("Rainy.")),
    logs.feedback("rating", 3, scale=[1, 5], comment="Fine."),
    logs.feedback("choice", {"chosen": logs.say("a"), "rejected": logs.say("b")}),
]


OTHERS = [pytest.param(source, marks=pytest.mark.slow) for source in SOURCES[1:]]


@pytest.mark.parametrize(
    "source", [fivekey, feedback, SOURCES[0], *OTHERS], ids=lambda source: source.NAME
)
def test_every_line_of_a_damaged_file_is_loaded_or_quarantined(source: Source, tmp_path: Path):
    samples = [*CANONICAL, *(value for _, value in SAMPLES)]
    own = [value for its, value in SAMPLES if its is source] or CANONICAL
    half = MUTANTS // 2
    mutants = [*mutation.mutants(samples, half, seed=1), *mutation.mutants(own, half, seed=2)]
    path = tmp_path / "damaged.jsonl"
    logs.write(path, (of_its_own_span(value, n) for n, value in enumerate(mutants)))
    with warehouses.connect(tmp_path / "warehouse.duckdb") as con:
        item = Input(str(path), source=source.NAME, defaults=DEFAULTS)
        loaded = logs.load_input(con, item, now=logs.NOW)
        places = "select line from raw.interactions union select line from raw.feedback"
        kept = con.execute(f"{places} union select line from raw.quarantine").fetchall()
        reasons = con.execute("select count(*) from raw.quarantine where reason = ''").fetchall()
    known_before = {line for (line,) in kept}
    assert loaded.new > 0
    assert loaded.quarantined > half
    assert reasons == [(0,)]
    lost = [n for n, _ in enumerate(mutants, start=1) if n not in known_before]
    assert len(lost) <= loaded.known, [mutants[n - 1] for n in lost[:3]]
