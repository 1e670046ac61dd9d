"""Nothing of an erased row stays among the judgements that curation keeps."""

import pyarrow.parquet as pq
import pytest

from components.curate import curate_workload
from components.erase.subject import Subject
from flows import erase
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


def test_a_search_finds_a_judgement_that_was_kept(judged: House, eraser: Eraser):
    (path,) = judged.settings.judgements.rglob("*.parquet")
    before = path.read_bytes()
    eraser(judged.settings, Subject(BOB))
    (path,) = judged.settings.judgements.rglob("*.parquet")
    path.write_bytes(before)
    left = erase.verify_erasure(judged.settings, subject=Subject(BOB), certificate_path=None).left
    assert {item.where.split("/")[0] for item in left} == {"judgements"}
