"""Gather what is known of the interactions that a person could be asked about."""

from collections.abc import Mapping
from dataclasses import dataclass

from components import warehouse
from components.review.measured import Measured
from components.review.score import Known, Pick, pick
from components.warehouse import Connection

UNMEASURED = Measured(0, 0)


@dataclass(frozen=True, slots=True)
class Reviewable:
    """One interaction as a reviewer sees it: without personal data.

    ``messages``, ``tools`` and ``answer`` are JSON text; ``blamed`` is the decision that blames it.
    """

    interaction_id: str
    workload_id: str
    client_id: str
    response_id: str
    example_id: str
    messages: str
    tools: str
    answer: str
    cluster_id: str
    requests: int
    judged: int
    labels: int
    people_for: int
    people_against: int
    flags: list[str]
    blamed: int | None = None

    def known(self, measured: Measured) -> Known:
        """Give what its score depends on."""
        return Known(
            self.interaction_id,
            self.cluster_id,
            self.requests,
            self.judged,
            self.labels,
            self.people_for,
            self.people_against,
            tuple(self.flags),
            measured.models,
            measured.right,
            self.blamed,
        )


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of a person, and why."""

    about: Reviewable
    pick: Pick


def choose(
    con: Connection,
    workload_id: str,
    count: int,
    *,
    reviewer: str,
    measured: Mapping[str, Measured],
) -> list[Question]:
    """Choose the questions that help most, of a workload that was curated last.

    Args:
        con: The warehouse.
        workload_id: The workload; ``staging`` holds it.
        count: How many at most.
        reviewer: Who is asked; what that person has judged before is left out.
        measured: How models answered, by example.
    """
    values = {"workload_id": workload_id, "reviewer": reviewer}
    found = {
        one.interaction_id: one
        for one in warehouse.read(con, "marts/reviewable", Reviewable, **values)
    }
    known = (one.known(measured.get(one.example_id, UNMEASURED)) for one in found.values())
    return [Question(found[one.interaction_id], one) for one in pick(known, count)]
