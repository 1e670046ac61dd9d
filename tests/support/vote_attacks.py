"""Traffic of an honest month, and three attacks on it, as applications would log them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

from components.curate import curate_workload
from components.curate.settings import Rules
from components.schema import Json
from components.store import warehouse
from tests.support import logs, warehouses

ANSWERS, PEOPLE, SIGNALS = 600, 60, 400
BEGIN, MONTH = 1_760_000_000, 30 * 86_400
Lines = list[dict[str, Json]]


@dataclass(frozen=True)
class Outcome:
    """What an attack came to: the attackers' share of all weight, and the rows left out."""

    name: str
    signals: int
    share_before: float
    share_after: float
    cap: float
    disliked: int
    held_back: int
    evidence: list[warehouse.Row]


def traffic() -> Lines:
    return [
        logs.interaction(
            f"ask {n}", message=logs.say(f"answer {n}"), response_id=f"r{n}", timestamp=BEGIN
        )
        for n in range(ANSWERS)
    ]


def honest() -> Lines:
    """Sixty people give four hundred thumbs over a month, four in five of them up."""
    draw = Random(7)
    return [
        thumb(
            f"person {draw.randrange(PEOPLE)}",
            draw.randrange(ANSWERS),
            "up" if draw.random() < 0.8 else "down",
            draw.randrange(MONTH),
        )
        for _ in range(SIGNALS)
    ]


def flood() -> Lines:
    """One actor dislikes five hundred answers within ten minutes."""
    return [thumb("mallory", n, "down", MONTH // 2 + n) for n in range(500)]


def drip() -> Lines:
    """One actor dislikes five hundred answers, one an hour: no burst, only too much."""
    return [thumb("mallory", n, "down", n * 3600) for n in range(500)]


def brigade() -> Lines:
    """Fifty new actors dislike three answers each within ten minutes."""
    return [thumb(f"sock {n % 50}", n, "down", MONTH // 2 + 4 * n) for n in range(150)]


ATTACKS = {"flood": flood, "drip": drip, "brigade": brigade}


def thumb(actor: str, answer: int, value: str, seconds: int) -> dict[str, Json]:
    return logs.feedback(
        "thumb", value, actor_id=actor, response_id=f"r{answer}", timestamp=BEGIN + 60 + seconds
    )


def outcomes(folder: Path) -> Iterator[Outcome]:
    """Curate the month without an attack, then with each of them."""
    yield outcome(folder / "none", "none", [])
    for name, attack in ATTACKS.items():
        yield outcome(folder / name, name, attack())


def outcome(folder: Path, name: str, attack: Lines) -> Outcome:
    folder.mkdir(parents=True)
    log = logs.write(folder / "log.jsonl", traffic())
    given = logs.write(folder / "feedback.jsonl", [*honest(), *attack])
    with warehouses.connect(folder / "warehouse.duckdb") as con:
        logs.load(con, log, now=logs.NOW)
        logs.load_feedback(con, given, now=logs.NOW)
        tally = curate_workload.curate(con, "weather", Rules(), now=logs.NOW)
        actors: Json = [*sorted({str(one["actor_id"]) for one in attack})]
        shares = warehouse.rows(con, SHARES, actors=actors)
        evidence = warehouse.rows(con, EVIDENCE)
    (found,) = shares
    return Outcome(
        name=name,
        signals=len(attack),
        share_before=float(str(found["before"])),
        share_after=float(str(found["after"])),
        cap=float(str(found["cap"])),
        disliked=tally.counts.get("thumbs_down", 0),
        held_back=tally.feedback_held_back,
        evidence=evidence,
    )


SHARES = """
    select
        coalesce(sum(share_before) filter (where actor_id in $actors), 0) as before,
        coalesce(sum(share_after) filter (where actor_id in $actors), 0) as after,
        max(cap) as cap
    from curated.shares
"""
EVIDENCE = """
    select
        kind, len(actors) as actors, first_at, last_at, found, expected, chance, aim,
        len(held_back) as held_back
    from curated.bursts
    order by kind
"""
