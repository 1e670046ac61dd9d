"""How the time for hostile rows and requests grows with their size, and who waits in an attack.

    python -m tests.benchmarks.hostile [--size 131072] [--attack NAME]... [--requests 4194304]

For each row it prints the processor time of judging it at 1, 2 and 4 times the size and the ratios;
2 and 4 are linear. A row that is left out, because of a bound or of its deadline, says so. For each
request it prints how long the receiver takes to answer it at these sizes, then what other clients'
small requests took while eight connections sent the largest again and again, what they took while
the same was sent to another receiver of this machine, and undisturbed. Compare on a machine that
does nothing else.

For each attack on a gateway (``--attack`` takes a group of them, too: grammars, schemas, prompts,
history, canaries) it prints the milliseconds that other clients waited for ordinary requests, in
brackets while another gateway of this machine was attacked, and for new schemas; the most memory of
the gateway with its children; the seconds that its end took after SIGTERM in the midst of it; and
the bars that were missed. The exit code is 1 if any was.
"""

import argparse
import itertools
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from components.curate import row_judgement
from components.curate.settings import Dispositions, Rules
from tests.benchmarks import hostile_gateway
from tests.benchmarks.crowd import Crowd
from tests.benchmarks.hostile_gateway import Attack
from tests.support import attacks, receivers
from tests.support.attacks import Request
from tests.support.receivers import Receiver

RULES = Rules(max_prompt_chars=10**9, rules=Dispositions.model_validate({"repetition": "ignore"}))
"""So that redaction gets to see what is repeated."""

SECONDS = 3.0
"""So long each request is sent again and again."""

MIB = 2**20


def judged(name: str, size: int) -> tuple[float, str]:
    """Judge a row; return its processor time, and the verdict with its mark."""
    row = attacks.ROWS[name](size)
    began = time.process_time()
    found = row_judgement.judge(row, RULES)
    took = max(time.process_time() - began, 1e-4)
    return took, " ".join(filter(None, [found.objection or "kept", found.mark]))


def answered(receiver: Receiver, sent: Request) -> tuple[float, int]:
    """Send a request; return the seconds until its answer, the least of three, and the status."""
    took: list[float] = []
    status = 0
    for _ in range(3):
        began = time.perf_counter()
        status = receiver.post(
            sent.path, content=sent.content, headers=dict(sent.headers)
        ).status_code
        took.append(time.perf_counter() - began)
    return min(took), status


def print_requests(names: Sequence[str], size: int, folder: Path) -> None:
    """Print two lines for each request."""
    homes = folder / "home", folder / "elsewhere"
    for home in homes:
        home.mkdir()
    with receivers.running(homes[0]) as receiver, receivers.running(homes[1]) as elsewhere:
        crowd = Crowd(receiver)
        for name in names:
            found = [answered(receiver, attacks.REQUESTS[name](n * size)) for n in (1, 2, 4)]
            (once, _), (twice, _), (four, status) = found
            say(
                f"{name:30} {once:7.3f} s {twice:7.3f} s {four:7.3f} s   "
                f"ratios {twice / once:4.1f} {four / once:4.1f}   {status}"
            )
            undisturbed = crowd.send(SECONDS)
            beside, _ = crowd.send_under_attack(elsewhere, name, 4 * size, SECONDS)
            attacked, attack = crowd.send_under_attack(receiver, name, 4 * size, SECONDS)
            say(
                f"{'':30} others' p99 {attacked.p99:.0f} ms, p50 {attacked.p50:.0f} ms (another "
                f"receiver attacked: {beside.p99:.0f}, {beside.p50:.0f}; undisturbed: "
                f"{undisturbed.p99:.0f}, {undisturbed.p50:.0f}); {attack.count} attacks: "
                f"{attack.statuses}, {attack.mean_seconds:.2f} s each"
            )


def print_sieges(attacks: Mapping[str, Attack]) -> bool:
    """Print a line for each attack on a gateway; return whether it kept all bars."""
    if attacks:
        say(
            f"{'at a gateway':30}{'p99':>6}{'beside':>8}{'p50':>6}{'new p50':>9}{'most':>7}"
            f"{'MiB':>6}{'end':>6}  verdict"
        )
    is_kept = True
    for name, attack in attacks.items():
        with tempfile.TemporaryDirectory() as folder:
            outcome = hostile_gateway.besiege(attack, Path(folder), SECONDS)
        others, new, missed = outcome.others, outcome.new_schemas, outcome.missed()
        times = (others.p99_seconds, outcome.beside.p99_seconds, others.p50_seconds)
        p99, beside, p50, new_p50, most = (
            1000 * seconds for seconds in (*times, new.p50_seconds, new.most_seconds)
        )
        verdict = f"MISSED: {missed}" if missed else "ok"
        say(
            f"{name:30}{p99:6.0f}{f'({beside:.0f})':>8}{p50:6.0f}{new_p50:9.0f}{most:7.0f}"
            f"{outcome.mib:6.0f}{outcome.end_seconds:6.1f}  {verdict}"
        )
        is_kept &= not missed
    return is_kept


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main(arguments: list[str]) -> bool:
    """Print a line for each attack; return whether gateways kept their bars."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=2**17)
    parser.add_argument("--requests", type=int, default=MIB * 4 - 2**10)
    groups = hostile_gateway.ATTACKS
    known = [*attacks.ROWS, *attacks.REQUESTS, *groups, *itertools.chain(*groups.values())]
    parser.add_argument("--attack", action="append", choices=known)
    given = parser.parse_args(arguments)
    wanted = given.attack or known
    for name in ("one word", "many secrets", "marks on a letter"):
        judged(name, 1000)  # loads what is loaded once a process
    for name in (one for one in attacks.ROWS if one in wanted):
        found = [judged(name, factor * given.size) for factor in (1, 2, 4)]
        (once, _), (twice, _), (four, verdict) = found
        sys.stdout.write(
            f"{name:30} {once:7.3f} s {twice:7.3f} s {four:7.3f} s   "
            f"ratios {twice / once:4.1f} {four / once:4.1f}   {verdict}\n"
        )
        sys.stdout.flush()
    if requests := [one for one in attacks.REQUESTS if one in wanted]:
        with tempfile.TemporaryDirectory() as folder:
            print_requests(requests, given.requests, Path(folder))
    return print_sieges(
        {
            name: attack
            for group, attacks_of in groups.items()
            for name, attack in attacks_of.items()
            if {name, group} & {*wanted}
        }
    )


if __name__ == "__main__":
    sys.exit(not main(sys.argv[1:]))
