"""Hold sealed policies and looks against the links of the chain that commit to them; pure."""

from collections.abc import Iterable, Mapping
from itertools import groupby

from components.decide.chain import Broken, Link
from components.looks import Book, Look, Seal

ROUNDING = 1e-9


def first_broken(links: Iterable[Link], book: Book) -> Broken | None:
    """Find the first seal or look that is not what its link says; ``None`` if all are.

    Looks of older versions have no link, and are not held against any.
    """
    by_place = {link.sequence: link for link in links}
    seals = {one.decision: one for one in book.seals}
    looks = {one.decision: one for one in book.looks if one.decision is not None}
    for place in sorted({*seals, *looks, *_committing(by_place)}):
        if place in seals:
            said = _differing(by_place.get(place), "sealed", seals[place])
        elif place in looks:
            said = _differing(by_place.get(place), "looked", looks[place])
            said = said or _unsealed(looks[place], seals)
        else:
            said = "is missing: the chain has it, but it is kept with no seal or look any more"
        if said is not None:
            return Broken(place, said)
    return _overspent(looks.values(), seals)


def _committing(links: Mapping[int, Link]) -> list[int]:
    return [place for place, link in links.items() if link.kind in ("sealed", "looked")]


def _differing(link: Link | None, kind: str, row: Seal | Look) -> str | None:
    name = "sealed policy" if kind == "sealed" else "look"
    at = row.sealed_at if isinstance(row, Seal) else row.looked_at
    if link is None or link.kind != kind:
        return f"is no {name}: one is kept that the chain does not have"
    kept = (row.body, row.workload_id, row.policy_digest, at)
    if kept != (link.body, link.workload_id, link.evidence_digest, link.decided_at):
        return f"was changed: the {name} that is kept is not the one that was recorded"
    return None


def _unsealed(look: Look, seals: Mapping[int, Seal]) -> str | None:
    seal = seals.get(look.seal or 0)
    if seal is None or seal.decision > (look.decision or 0):
        return "is a look under no policy that was sealed before it"
    return None


def _overspent(looks: Iterable[Look], seals: Mapping[int, Seal]) -> Broken | None:
    """Find the look with which a seal's alpha was exceeded."""
    ordered = sorted(looks, key=lambda one: (one.seal or 0, one.decision or 0))
    for seal, group in groupby(ordered, key=lambda one: one.seal or 0):
        spent = 0.0
        for look in group:
            spent += look.alpha or 0.0
            if spent > seals[seal].alpha + ROUNDING:
                return Broken(look.decision or 0, "was given more than the sealed alpha has left")
    return None
