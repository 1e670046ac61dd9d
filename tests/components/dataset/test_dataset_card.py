"""A snapshot's card: its counts, and its front matter for datasets."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from components.curate.settings import Balance, Replay, Rules
from components.dataset.snapshot_figures import Snapshot
from components.schema import Json
from components.store import manifest
from components.store.warehouse import Location
from tests.support import curations, logs, tiny, warehouses

RULES = Rules(holdout_share=0.3, validation_share=0.2, split_by="conversation")
NAMES = {"README.md", "manifest.json", "verdicts.png", "labels.png", "times.png", "lengths.png"}
SIDES = {"train.parquet", "validation.parquet", "holdout.parquet"}
DATA = SIDES | {"preferences.parquet", "labels.parquet", "holdout_preferences.parquet"}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    tiny.tokenizer().save_pretrained(folder)
    return folder


def line(n: int) -> dict[str, Json]:
    """Write a request of the one or the other label; the last of each ten is empty."""
    text = "" if n % 10 == 9 else ("yes|no", "`why` <b>not</b>")[n % 2]
    return logs.interaction(
        f"Is {n} a number?",
        message=logs.say(text),
        response_id=f"r{n}",
        timestamp=1_760_000_000 + n * 40_000,
        client_id=f"app-{n % 2}",
    )


def fill(folder: Path, parts: list[range]) -> Location:
    """Load the lines, one file for each part, and a vote; return the warehouse."""
    path = warehouses.location(folder / "w.duckdb")
    with warehouses.connect(path) as con:
        for number, part in enumerate(parts):
            log = logs.write(folder / f"{number}.jsonl", map(line, part))
            logs.load(con, log, now=logs.NOW)
        vote = logs.feedback("thumb", "up", response_id="r0", client_id="app-0")
        logs.load_feedback(con, logs.write(folder / "votes.jsonl", [vote]), now=logs.NOW)
    return path


def freeze(path: Location, root: Path, base: Path | None) -> Snapshot:
    with warehouses.connect(path) as con:
        curations.curate(con, "weather", RULES, now=logs.NOW)
        return curations.freeze(con, root, "weather", rules=RULES, now=logs.NOW, base=base)


def test_the_card_counts_by_side_verdict_client_source_label_and_feedback(
    tmp_path: Path, base: Path
):
    frozen = freeze(fill(tmp_path, [range(60)]), tmp_path, base)
    assert {path.name for path in frozen.path.iterdir()} == NAMES | DATA
    text = (frozen.path / "README.md").read_text()
    for expected in (
        f"| train | {frozen.train_rows} |",
        f"| validation | {frozen.validation_rows} |",
        f"| holdout | {frozen.holdout_rows} |",
        frozen.holdout_version,
        "| `kept` | 54 | 90.0% |",
        "| `empty_answer` | 6 | 10.0% |",
        "54 examples from 60 interactions, logged from 2025-10-09 to 2025-11-05 (UTC)",
        "| `fivekey` |",
        "| `app-1` |",
        "| `thumb` |",
        "| `yes\\|no` |",
        "| `'why' <b>not</b>` |",
        '"holdout_share": 0.3',
    ):
        assert expected in text


def test_rows_without_a_time_have_no_day_and_replayed_ones_no_client(tmp_path: Path):
    other = tmp_path / "general.jsonl"
    other.write_text(
        "".join(
            json.dumps({"messages": [{"role": "user", "content": f"Count {n}"}, logs.say("Done")]})
            + "\n"
            for n in range(9)
        )
    )
    replay = Replay(sources=[other], share=0.1)
    rules = RULES.model_copy(update={"balance": Balance(replay=replay)})
    path = warehouses.location(tmp_path / "w.duckdb")
    with warehouses.connect(path) as con:
        undated = [line(n) | {"timestamp": 0} for n in range(40)]
        logs.load(con, logs.write(tmp_path / "log.jsonl", undated), now=logs.NOW)
        tally = curations.curate(con, "weather", rules, now=logs.NOW)
        frozen = curations.freeze(con, tmp_path, "weather", rules=rules, now=logs.NOW)
    text = (frozen.path / "README.md").read_text()
    count = sum(frozen.sides.values())
    assert tally.replayed
    first = (
        f"{count} examples ({tally.replayed} replayed from other sets) from 40 interactions. One"
    )
    assert first in text
    assert f"| `replay` | {tally.replayed} | 0 | 0 |" in text.partition("## Clients")[0]
    assert "`replay`" not in text.partition("## Clients")[2].partition("## Labels")[0]


def test_tokens_are_counted_with_the_bases_tokenizer(tmp_path: Path, base: Path):
    import pyarrow.parquet as pq

    frozen = freeze(fill(tmp_path, [range(40)]), tmp_path, base)
    rows = pq.read_table(frozen.path / "train.parquet").to_pylist()
    for row in rows:  # the tiny tokenizer has a token a byte
        assert row["prompt_tokens"] == len(row["prompt"][0]["content"].encode())
        assert row["answer_tokens"] == len(row["completion"][0]["content"].encode())
    counted = manifest.read(frozen.path)["tokens"]
    assert isinstance(counted, dict)
    assert counted["train"] == sum(row["prompt_tokens"] + row["answer_tokens"] for row in rows)


@pytest.mark.slow
def test_without_a_tokenizer_the_card_has_no_token_counts(tmp_path: Path):
    frozen = freeze(fill(tmp_path, [range(40)]), tmp_path, tmp_path)
    assert "Not counted" in (frozen.path / "README.md").read_text()
    assert not (frozen.path / "lengths.png").exists()


@pytest.mark.slow
def test_datasets_opens_the_folder_by_its_card(tmp_path: Path, base: Path):
    from datasets import load_dataset

    frozen = freeze(fill(tmp_path, [range(60)]), tmp_path, base)
    opened = load_dataset(str(frozen.path), cache_dir=str(tmp_path / "cache"))
    counts = {name: split.num_rows for name, split in opened.items()}
    assert counts == {
        "train": frozen.train_rows,
        "validation": frozen.validation_rows,
        "test": frozen.holdout_rows,
    }


CODE = """
import sys
from pathlib import Path
from tests.components.dataset import test_dataset_card
path, root, base = map(Path, sys.argv[1:])
print(test_dataset_card.freeze(path, root, base).path)
"""


@pytest.mark.slow
def test_bytes_are_equal_across_processes_and_file_orders(tmp_path: Path, base: Path):
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    one = freeze(fill(here, [range(60)]), here / "snapshots", base).path
    path = fill(there, [range(30, 60), range(15), range(10, 30)])
    command = [sys.executable, "-c", CODE, str(path), str(there / "snapshots"), str(base)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    other = Path(done.stdout.splitlines()[-1])
    contents = [{p.name: p.read_bytes() for p in folder.iterdir()} for folder in (one, other)]
    assert contents[0] == contents[1]
    assert contents[0].keys() == NAMES | DATA


ROOT = Path(__file__).parents[3]
