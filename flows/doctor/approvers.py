"""Whether those who may decide can prove who they are."""

from collections.abc import Iterator, Mapping

from components.decide.approvers import Approving
from flows.doctor.finding import Finding, fine, note, wrong


def check(name: str, rules: Approving, troubles: Mapping[str, str]) -> Iterator[Finding]:
    """Look at who may decide about a workload.

    Args:
        name: The workload's file.
        rules: What the file says.
        troubles: Why the codes of a person can't be checked here, by name, where they can't.
    """
    if not rules.approvers:
        yield note(
            name,
            "whoever reaches Prefect may approve, under any name",
            "list who may under `approve: approvers:`, with `proof: signature`",
        )
    elif rules.proof == "name":
        yield note(
            name,
            "approvers are listed without proof: whoever reaches Prefect can give one's name",
            "each one's SSH key under `keys`, and `proof: signature` under approve",
        )
    elif rules.proof == "signature":
        yield fine(name, f"{len(rules.approvers)} approver(s), each with a key to sign with")
    else:
        yield note(
            name,
            "codes prove who was there, not what was said: who can write Prefect's database can "
            "change an answer",
            "each one's SSH key under `keys`, and `proof: signature` under approve",
        )
        yield from (_untold(name, who, why) for who, why in troubles.items())
        if not troubles:
            yield fine(name, f"{len(rules.approvers)} approver(s), each with a secret for codes")


def _untold(name: str, who: str, why: str) -> Finding:
    return wrong(
        name,
        f"no code of {who} can be taken: {why}",
        f"`flywheel approver add {who} --again` on the cpu worker's machine, or correct the file",
    )
