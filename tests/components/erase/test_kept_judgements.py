"""Nothing of an erased row stays in what curation keeps, or left when it was killed."""

import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from components.curate import curate_workload
from components.curate.redaction import clean_exchanges
from components.erase.subject import Subject
from flows.erasing import erase
from flows.settings import Settings
from tests.components.erase.conftest import Eraser
from tests.support import erased_home, logs, warehouses
from tests.support.erased_home import ANN, BOB, WORKLOAD, House


@pytest.fixture
def judged(home: House) -> House:
    keep(home.settings)
    return home


def keep(settings: Settings) -> int:
    with warehouses.connect(settings.warehouse) as con:
        folder = settings.judgements / WORKLOAD
        rules = erased_home.RULES
        tally = curate_workload.curate(con, WORKLOAD, rules, now=logs.NOW, judgements_folder=folder)
    return tally.judged


def kept(settings: Settings) -> str:
    paths = sorted(settings.judgements.rglob("*.parquet"))
    return str([pq.read_table(path).to_pylist() for path in paths])


def test_an_erasure_deletes_the_kept_judgements_of_its_rows_only(judged: House, eraser: Eraser):
    assert "ann asks" in kept(judged.settings)
    assert eraser(judged.settings, Subject(ANN)).is_clean
    assert "ann" not in kept(judged.settings)
    assert "bob asks" in kept(judged.settings)
    assert keep(judged.settings) == 0


def test_a_search_finds_what_was_kept(judged: House, eraser: Eraser):
    paths = judged.settings.judgements.rglob("*.parquet")
    of_rows = [path for path in paths if not path.parent.name.startswith(clean_exchanges.PREFIX)]
    before = {path: path.read_bytes() for path in of_rows}
    assert len(before) == 2
    eraser(judged.settings, Subject(BOB))
    for path, content in before.items():
        path.write_bytes(content)
        left = erase.verify_erasure(
            judged.settings, subject=Subject(BOB), certificate_path=None
        ).left
        assert {item.where.split("/")[0] for item in left} == {"judgements"}
        path.unlink()


KILLED = """
import os, signal, sys
from pathlib import Path
from components.store import warehouse

def fill(con, kind):
    con.execute("set memory_limit = '40MB'")
    con.execute(f"create {kind} table copied as select 'ann asks ' || range"
        " || repeat(md5(range::varchar), 40) as messages from range(60000)")

with warehouse.in_memory(Path(sys.argv[2])) as con, warehouse.connect(Path(sys.argv[1])) as file:
    fill(con, "")
    fill(file, "temporary")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
def test_nothing_is_left_of_rows_for_which_killed_processes_had_no_memory(
    home: House, eraser: Eraser
):
    """DuckDB leaves them in files, of a curation in the scratch folder, else beside its own."""
    settings = home.settings
    command = [sys.executable, "-c", KILLED, str(settings.warehouse), str(settings.scratch)]
    assert subprocess.run(command, check=False).returncode == -9
    assert len(spilled(settings)) >= 2
    assert eraser(settings, Subject(ANN)).is_clean
    assert spilled(settings) == []


def spilled(settings: Settings) -> list[Path]:
    paths = settings.home.rglob("*.tmp")
    return [path for path in paths if path.is_file() and b"ann asks" in path.read_bytes()]
