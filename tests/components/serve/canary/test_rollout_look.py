"""A look is a function of the file's bytes, however often the file was looked at before."""

import random
from pathlib import Path

from components.schema import Json
from components.serve.canary import rollout_evidence, rollout_look
from components.serve.canary.conversation_arms import Arm
from components.serve.canary.rollout_evidence import AnswerLine
from components.serve.canary.rollout_look import Lookout
from components.serve.canary.rollout_order import RolloutOrder
from components.serve.canary.rollout_plan import HOUR, RolloutPlan, ShareStep
from components.serve.canary.rollout_tally import RolloutTally

PLAN = RolloutPlan("support", "8", "7", (ShareStep(0.5, HOUR),), deadline_seconds=HOUR)
ORDER = RolloutOrder("0123456789ab", PLAN, None, "2026-11-27T16:00:00+00:00")


def answers() -> bytes:
    draws = random.Random(3)
    lines = list[bytes]()
    for number in range(400):
        arm: Arm = "canary" if draws.random() < 0.5 else "champion"
        kinds = frozenset({"cut"} if draws.random() < 0.1 else ())
        line = AnswerLine(number, str(number), 0.5, arm, kinds, str(number))  # type: ignore[arg-type]
        lines.append(rollout_evidence.to_bytes(line))
    lines.insert(100, b"x" * 5_000 + b"\n")
    return b"".join(lines)


def test_a_file_that_grows_in_pieces_gives_what_a_new_process_reads_at_once(tmp_path: Path):
    path, content, lookout = tmp_path / "evidence.jsonl", answers(), Lookout()
    draws = random.Random(5)
    end = 0
    shown: dict[str, Json] = {}
    path.touch()
    while end < len(content):
        begin, end = end, min(len(content), end + draws.randrange(1, 3_000))
        with path.open("ab") as file:
            file.write(content[begin:end])
        shown = lookout.look(ORDER.to_text(), path, 500.0)
        counted = shown["evidence_bytes"]
        assert counted == content[:end].rfind(b"\n") + 1
        assert isinstance(counted, int)
        tally = RolloutTally()
        for line in rollout_evidence.read_lines(path, counted):
            tally.add(line)
        assert rollout_look.decide(ORDER, tally, 500.0).to_json() == shown["verdict"]
    assert shown == Lookout().look(ORDER.to_text(), path, 500.0)
    assert shown["unreadable"] == 1


def test_a_file_that_was_replaced_is_read_again(tmp_path: Path):
    path, content, lookout = tmp_path / "evidence.jsonl", answers(), Lookout()
    path.write_bytes(content)
    lookout.look(ORDER.to_text(), path, 500.0)
    path.write_bytes(content[:1_000])
    shown = lookout.look(ORDER.to_text(), path, 500.0)
    assert shown == Lookout().look(ORDER.to_text(), path, 500.0)


def test_a_long_file_is_read_on_look_by_look_without_a_verdict_on_a_part(tmp_path: Path):
    path, lookout = tmp_path / "evidence.jsonl", Lookout(read_seconds=0)
    path.write_bytes(answers() * 100)
    shown = [lookout.look(ORDER.to_text(), path, 500.0)]
    while "verdict" not in shown[-1]:
        shown.append(lookout.look(ORDER.to_text(), path, 500.0))
    assert len(shown) > 2
    assert shown[:-1] == [{"is_behind": True}] * (len(shown) - 1)
    assert shown[-1] == Lookout().look(ORDER.to_text(), path, 500.0)
