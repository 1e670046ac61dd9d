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
            "list who may under `approve: approvers:`, with `codes: true`",
        )
    elif not rules.codes:
        yield note(
            name,
            "approvers are listed without codes: whoever reaches Prefect can give one's name",
            "`flywheel approver add NAME` for each, and `codes: true` under approve",
        )
    else:
        yield from (_untold(name, who, why) for who, why in troubles.items())
        if not troubles:
            yield fine(name, f"{len(rules.approvers)} approver(s), each with a secret for codes")


def _untold(name: str, who: str, why: str) -> Finding:
    return wrong(
        name,
        f"no code of {who} can be taken: {why}",
        f"`flywheel approver add {who} --again` on the cpu worker's machine, or correct the file",
    )
