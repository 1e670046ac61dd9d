"""At most ``holdout_per_cluster`` requests of one cluster are tested on."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from components.curate.curate_workload import CurationTally
from components.curate.preferences import outcomes
from components.curate.preferences.outcomes import PlacedInteraction
from components.curate.settings import Rules
from components.curate.split import Side
from components.dataset.snapshot_figures import Snapshot
from components.schema import Json
from components.scorecard import CLUSTER_CAP
from components.store import manifest
from components.store.ledger import Holdout, HoldoutLog
from components.store.warehouse import Connection
from flows import preregistration
from tests.components.store.test_holdout_uses import look, seal
from tests.support import curations, logs, warehouses

SIZES = {f"c{n}": 1 + n % 5 for n in range(40)}
"""Number of turns of each conversation."""

TOPICS = ("refund", "parcel", "invoice", "voucher", "account", "tariff", "router")


def line(conversation: str, turn: int, **more: Json) -> dict[str, Json]:
    """Return a turn of an application that sends only the newest message."""
    number = int(conversation[1:])
    question = f"{TOPICS[number % 7]} {TOPICS[turn % 7]} {conversation} {turn}"
    fields: dict[str, Json] = {"conversation_id": conversation, **more}
    answer = logs.say(f"{question}: a long answer, which is free text and no label of anything")
    return logs.interaction(
        question, message=answer, response_id=f"{conversation}-{turn}", timestamp=turn, **fields
    )


def conversations(sizes: dict[str, int], **more: Json) -> list[dict[str, Json]]:
    return [line(name, turn, **more) for name, size in sizes.items() for turn in range(size)]


def rules(cap: int | None, **more: object) -> Rules:
    settings = {"split_by": "conversation", "holdout_share": 0.4, "holdout_per_cluster": cap}
    return Rules.model_validate(settings | more)


@dataclass(frozen=True)
class Frozen:
    """Result of a curation: the tested requests by conversation, and the training rows."""

    tally: CurationTally
    snapshot: Snapshot
    tested: dict[str, str]
    learned: frozenset[str]
    marks: set[str]


def freeze(con: Connection, folder: Path, lines: Sequence[dict[str, Json]], under: Rules) -> Frozen:
    logs.load(con, logs.write(folder / "log.jsonl", lines), now=logs.NOW)
    tally = curations.curate(con, "weather", under, now=logs.NOW)
    frozen = curations.freeze(con, folder / "snapshots", "weather", rules=under, now=logs.NOW)
    tested = _asked(frozen.path / "holdout.parquet")
    others = [*_asked(frozen.path / "train.parquet"), *_asked(frozen.path / "validation.parquet")]
    marks = con.execute(
        "select distinct mark from curated.verdicts where objection = 'over_cluster_cap'"
    ).fetchall()
    return Frozen(
        tally,
        frozen,
        {question: question.split()[2] for question in tested},
        frozenset(others),
        {mark for (mark,) in marks},
    )


def _asked(file: Path) -> list[str]:
    rows = pq.read_table(file, columns=["messages"]).to_pylist()
    return [json.loads(row["messages"])[-1]["content"] for row in rows]


@pytest.fixture(scope="module")
def by_cap(tmp_path_factory: pytest.TempPathFactory) -> dict[int | None, Frozen]:
    """The same log, curated in a separate home per cap."""
    frozen: dict[int | None, Frozen] = {}
    for cap in (None, 1, 2):
        folder = tmp_path_factory.mktemp(f"cap-{cap}")
        with warehouses.connect(folder / "w.duckdb") as con:
            frozen[cap] = freeze(con, folder, conversations(SIZES), rules(cap))
    return frozen


@pytest.mark.parametrize("cap", [1, 2])
def test_a_conversation_has_at_most_the_cap_of_tested_requests(
    by_cap: dict[int | None, Frozen], cap: int
):
    whole, capped = by_cap[None], by_cap[cap]
    sizes = Counter(whole.tested.values())
    assert Counter(capped.tested.values()) == {name: min(n, cap) for name, n in sizes.items()}
    assert capped.tested.items() <= whole.tested.items()
    assert capped.learned == whole.learned, "a cap on the holdout teaches nothing more or less"


def test_tested_requests_are_chosen_independent_of_time(by_cap: dict[int | None, Frozen]):
    turns = {
        int(question.split()[3]) for question, name in by_cap[1].tested.items() if SIZES[name] > 2
    }
    assert len(turns) > 2


def test_the_snapshot_counts_the_requests_over_the_cap(by_cap: dict[int | None, Frozen]):
    whole, capped = by_cap[None], by_cap[1]
    left_out = len(whole.tested) - len(capped.tested)
    assert capped.tally.counts["over_cluster_cap"] == left_out
    assert manifest.read(capped.snapshot.path)["counts"] == capped.tally.counts
    card = (capped.snapshot.path / "README.md").read_text()
    assert f"| `over_cluster_cap` | {left_out} |" in card
    assert "`holdout_per_cluster: 1`" in card
    expected = {f"cluster of {size} held-out requests, capped at 1" for size in range(2, 6)}
    assert capped.marks == expected
    assert whole.marks == set()


def test_without_a_cap_the_snapshot_key_is_unchanged(
    by_cap: dict[int | None, Frozen],
):
    """Otherwise every home would train again for a setting that changes nothing."""
    config = manifest.read(by_cap[None].snapshot.path)["config"]
    assert isinstance(config, dict)
    assert CLUSTER_CAP not in config
    assert rules(1).model_dump(mode="json")[CLUSTER_CAP] == 1


@pytest.mark.slow
def test_a_conversation_that_grows_keeps_the_requests_that_were_tested_on(
    con: Connection, tmp_path: Path
):
    first = freeze(con, tmp_path, conversations(SIZES), rules(1))
    grown = freeze(con, tmp_path, conversations(dict.fromkeys(SIZES, 12)), rules(1))
    assert grown.tested == first.tested
    assert grown.snapshot.holdout_version == first.snapshot.holdout_version
    more = freeze(con, tmp_path, conversations(dict.fromkeys(SIZES, 12)), rules(3))
    assert first.tested.items() <= more.tested.items()
    assert set(Counter(more.tested.values()).values()) == {3}


@pytest.mark.slow
def test_a_cap_on_a_settled_holdout_shrinks_it_and_without_one_it_is_the_same_again(
    con: Connection, tmp_path: Path
):
    lines = conversations(SIZES)
    versions = [freeze(con, tmp_path, lines, rules(cap)) for cap in (None, 1, 2, 1, None)]
    whole, single, two, again, back = versions
    assert single.tested.items() < two.tested.items() < whole.tested.items()
    assert (again.tested, back.tested) == (single.tested, whole.tested)
    assert not {*whole.tested} & single.learned, "what was tested on is never learned"
    numbers = [version.snapshot.holdout_version.split("-")[0] for version in versions]
    assert numbers == ["v1", "v2", "v3", "v2", "v1"]


def test_a_disliked_tested_request_is_replaced_by_another_of_its_conversation(
    con: Connection, tmp_path: Path
):
    """A disliked answer is not a reference; another request tests the conversation."""
    lines = conversations(SIZES)
    first = freeze(con, tmp_path, lines, rules(1))
    name = next(name for name in first.tested.values() if SIZES[name] > 1)
    (disliked,) = (question for question, of in first.tested.items() if of == name)
    vote = logs.feedback(response_id=f"{name}-{disliked.split()[3]}")
    logs.load_feedback(con, logs.write(tmp_path / "feedback.jsonl", [vote]), now=logs.NOW)
    second = freeze(con, tmp_path, lines, rules(1))
    assert {*first.tested} - {*second.tested} == {disliked}
    assert Counter(second.tested.values()) == Counter(first.tested.values())


@pytest.mark.slow
def test_clusters_that_merge_are_capped_as_one(con: Connection, tmp_path: Path):
    """Otherwise two conversations of one person would each have a cap."""
    lines = conversations(dict.fromkeys(SIZES, 2))
    first = freeze(con, tmp_path, lines, rules(1))
    pair = [*first.tested.values()][:2]
    joining = [line(name, 7, user_id="ann") for name in pair]
    merged = freeze(con, tmp_path, joining, rules(1))
    assert sum(name in pair for name in merged.tested.values()) == 1
    assert merged.tested.items() < first.tested.items()
    assert merged.snapshot.clusters["holdout"] == merged.snapshot.holdout_rows


def test_requests_of_one_user_are_capped_together(con: Connection, tmp_path: Path):
    lines = [
        line(name, turn, user_id=f"u{int(name[1:]) % 8}")
        for name, size in SIZES.items()
        for turn in range(size)
    ]
    capped = freeze(con, tmp_path, lines, rules(1))
    users = [int(name[1:]) % 8 for name in capped.tested.values()]
    assert len(users) == len({*users})


@pytest.mark.parametrize("side", ["train", "holdout"])
def test_a_pair_on_a_request_that_is_left_out_is_neither_learned_nor_measured(side: Side):
    placed = PlacedInteraction("i", "holdout", "g", "c", "over_cluster_cap")
    usable, refusal = outcomes.usable_interaction(["i"], {"i": placed}, side)
    assert (usable, refusal) == (None, ("interaction_dropped", "over_cluster_cap"))


@pytest.mark.slow
def test_looks_at_the_full_holdout_count_for_the_capped_one(con: Connection, tmp_path: Path):
    """Otherwise a cap would restore spent alpha."""
    lines = conversations(dict.fromkeys(SIZES, 6))
    whole, single, three = (freeze(con, tmp_path, lines, rules(cap)) for cap in (None, 1, 3))

    def held(version: Frozen) -> Holdout:
        frozen = version.snapshot
        return preregistration.digest_holdout("weather", frozen.holdout_version, frozen.path)

    sealed = seal(held(whole))
    book = HoldoutLog([sealed], [look(held(whole))])
    for version in (single, three):
        assert book.sealed(held(version)) == sealed
        assert book.counting(None, held(version)) == book.looks
    shared = replaced(held(three), "of another name")
    assert len(book.counting(None, shared)) == 1
    assert book.counting(None, replaced(held(single), "other")) == book.looks


def replaced(held: Holdout, workload: str) -> Holdout:
    return Holdout(workload, held.version, held.rows)
