"""A look is a function of the file's bytes, however often the file was looked at before."""

import random
from pathlib import Path

import pytest

from components.extensions.canary import rollout_evidence, rollout_verdict
from components.extensions.canary.rollout_evidence import AnswerLine
from components.extensions.canary.rollout_order import HOUR, RolloutOrder, RolloutPlan, ShareStep
from components.extensions.canary.rollout_tally import RolloutTally
from components.extensions.canary.rollout_verdict import EvidenceReader
from components.serve.rollout import Arm
from components.serve.rollout_settings import BadKind

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
    lines.insert(200, b"x" * 200_000 + b"\n")
    return b"".join(lines)


def read_all(path: Path) -> EvidenceReader:
    reader = EvidenceReader(path, ORDER)
    while reader.read_on():
        pass
    return reader


def test_a_file_that_grows_in_pieces_gives_what_a_new_process_reads_at_once(tmp_path: Path):
    path, content = tmp_path / "evidence.jsonl", answers()
    draws, end = random.Random(5), 0
    path.touch()
    reader = EvidenceReader(path, ORDER)
    while end < len(content):
        begin, end = end, min(len(content), end + draws.randrange(1, 3_000))
        with path.open("ab") as file:
            file.write(content[begin:end])
        while reader.read_on():
            pass
        tally = RolloutTally()
        for line in rollout_evidence.read_lines(path, reader.counted_bytes):
            tally.add(line)
        expected = rollout_verdict.decide_rollout(ORDER, tally, 500.0).to_json()
        assert reader.look(500.0)["verdict"] == expected
    assert reader.counted_bytes == len(content)
    assert reader.look(500.0) == read_all(path).look(500.0)
    drawn = reader.tally.counts(500.0).conversations[0.5]
    assert drawn.canary + drawn.champion == 400


@pytest.mark.parametrize(("names", "is_named"), [(["all"], True), (["all", "other"], False)])
def test_a_canary_whose_draw_is_one_conversation_says_so(
    tmp_path: Path, names: list[str], *, is_named: bool
):
    path = tmp_path / "evidence.jsonl"
    none = frozenset[BadKind]()
    lines = [AnswerLine(0.0, name, 0.5, "canary", none, None, ("app",)) for name in names]
    lines += [AnswerLine(1.0, names[0], 0.5, "canary", none, str(n)) for n in range(30)]
    path.write_bytes(b"".join(map(rollout_evidence.to_bytes, lines)))
    verdict = rollout_verdict.decide_rollout(ORDER, read_all(path).tally, 5.0)
    assert verdict.reason.endswith(rollout_verdict.ONE_CONVERSATION) == is_named
