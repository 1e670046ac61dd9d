"""No shape of log ruins a data set, and what its gate counts is what was written."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from components.curate import curate_workload, held_rows
from components.curate.settings import Rules
from components.dataset import held_references
from components.gate import reference_errors
from components.gate.reference_errors import ReferenceAudit
from components.monitor import signs
from components.monitor.settings import Trigger
from components.store.warehouse import Connection
from tests.shapes import curation, judging, log_shapes, recurring_shapes
from tests.shapes.log_shapes import Author, Shape, documents
from tests.shapes.recurring_shapes import voters
from tests.support import logs, tiny, warehouses

SHAPES = log_shapes.SHAPES | recurring_shapes.SHAPES

IN_FULL = ("sixty-rows",)
"""These are trained on by default."""

LARGEST = 1000
"""Shapes of more lines are not trained on."""

NEVER = "documents"
"""A shape of which the tiny model can read nothing."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def con(home: Path):
    with warehouses.connect(home / "warehouse.duckdb") as con:
        yield con


@pytest.fixture(scope="module")
def base(home: Path) -> Path:
    return tiny.build(home / "base")


def each(*names: str, slow: bool) -> list[object]:
    marks = [pytest.mark.slow] if slow else []
    return [pytest.param(SHAPES[name], id=name, marks=marks) for name in names]


CURATED = [n for n, shape in SHAPES.items() if not (n in (*IN_FULL, NEVER) or shape.is_slow)]
BY_DEFAULT = ("instruction-in-user", "one-opening", "people", "recurring")
TRAINED = [n for n, shape in SHAPES.items() if n != NEVER and shape.lines <= LARGEST]


@pytest.mark.parametrize(
    "shape",
    [
        *each(*BY_DEFAULT, slow=False),
        *each(*(n for n in CURATED if n not in BY_DEFAULT), "sixty-thousand-rows", slow=True),
    ],
)
def test_what_is_curated_of_a_shape_of_log_is_whole_and_on_its_sides(
    con: Connection, home: Path, shape: Shape
):
    assert curation.problems(curation.curate(con, home, shape)) == []


@pytest.mark.parametrize(
    "shape",
    [*each(*IN_FULL, slow=False), *each(*(n for n in TRAINED if n not in IN_FULL), slow=True)],
)
def test_a_challenger_that_learned_from_a_shape_of_log_is_judged_on_what_was_written(
    tmp_path: Path, base: Path, shape: Shape
):
    with warehouses.connect(tmp_path / "warehouse.duckdb") as con:
        found = curation.curate(con, tmp_path, shape)
    assert curation.problems(found) == []
    assert judging.problems(judging.learn_and_judge(found, base, tmp_path)) == []


@pytest.mark.slow
def test_a_log_of_which_no_row_fits_the_window_is_refused_with_its_lengths(
    con: Connection, home: Path, base: Path
):
    found = curation.curate(con, home, SHAPES[NEVER])
    assert curation.problems(found) == []
    with pytest.raises(ValueError, match=r"none of its \d+ .* fits into max_length 2048"):
        judging.learn_and_judge(found, base, home)


def test_a_person_is_asked_where_all_prompts_are_longer_than_the_file_lets_them_be(
    con: Connection, tmp_path: Path
):
    log = [one.line for one in documents(Author("long", 0), 12)]
    logs.load(con, logs.write(tmp_path / "log.jsonl", log), now=logs.NOW)
    tally = curate_workload.curate(con, "long", Rules(split_by="conversation"), now=logs.NOW)
    assert tally.counts == {"too_long": 12}
    (loss,) = held_rows.open_losses(con, "long")
    assert str(loss) == "too_long left out 12 of 12 different requests (100%)"


def test_the_form_counts_the_references_that_only_production_vouches_for(tmp_path: Path):
    path = warehouses.location(tmp_path / "warehouse.duckdb")
    with warehouses.connect(path) as con:
        found = curation.curate(con, tmp_path, SHAPES["wrong-systematically"])
    held = [found.log[one.lines[0]] for one in found.kept if one.side == "holdout"]
    alone = sum(not one.feedback for one in held)
    references = held_references.read(path, found.frozen.path)
    audit = ReferenceAudit(len(references), sum(not one.is_vouched for one in references))
    (sentence,) = reference_errors.claim_sentences(audit, None)
    assert alone < len(held)
    assert f"Of {len(held)} held-out references only production vouches for {alone}:" in sentence


@pytest.mark.slow
@pytest.mark.parametrize("concentration", [2.0, 0.5, 0.05])
def test_people_who_vote_in_a_row_alarm_no_more_often_than_stated(
    tmp_path: Path, concentration: float
):
    logged = [
        voters(Author(f"shop-{seed}", seed), 400, concentration=concentration) for seed in range(80)
    ]
    alarms = 0
    with warehouses.connect(tmp_path / "warehouse.duckdb") as con:
        log = [one.line for lines in logged for one in lines]
        said = [line for lines in logged for one in lines for line in one.feedback]
        logs.load(con, logs.write(tmp_path / "log.jsonl", log), now=logs.NOW)
        logs.load_feedback(con, logs.write(tmp_path / "said.jsonl", said), now=logs.NOW)
        for lines in logged:
            line, since = lines[0].line, str(lines[len(lines) // 2].line["timestamp"])
            promoted = datetime.fromtimestamp(int(since), UTC)
            sign = signs.vote_sign(
                con, str(line["workload_id"]), "2", promoted, Trigger(), now=logs.NOW
            )
            assert sign is not None
            alarms += sign.is_reached
    level = Trigger().alpha
    assert alarms <= 80 * level + 2 * (80 * level * (1 - level)) ** 0.5
