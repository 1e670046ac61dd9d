import gzip
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from components.curate import decontamination
from components.curate.decontamination import (
    AskedTexts,
    Seen,
    UnreadableDocumentsError,
    decontaminate,
)
from components.curate.near import hashed_words
from components.curate.near.hashed_words import DigestedWords
from components.curate.settings import Overlap

QUESTION = (
    "A baker sells 24 loaves of bread each morning and half as many in the afternoon for 3 dollars"
    " a loaf. How much money does the baker make in a day?"
)
REPHRASED = (
    "Each day 24 loaves are sold by a baker before noon; in the afternoon, half of that. If a loaf"
    " of bread costs 3 dollars, what does the baker earn daily?"
)
OTHER = "Tell me which river flows through the town where my grandmother was born a long time ago"


def overlaps_of(
    texts: dict[str, str], settings: Overlap, held_out: tuple[str, ...] = ()
) -> dict[str, Seen]:
    """Return the overlaps of the rows that are not held out, by name."""
    ids = [*texts]
    written = pa.array([*texts.values()], pa.large_string())
    words = DigestedWords.of(hashed_words.column_of(written))
    places = {name: place for place, name in enumerate(ids)}
    rows = np.array([places[name] for name in ids if name not in held_out], np.int64)
    tested = np.array([places[name] for name in held_out], np.int64)
    overlaps = decontaminate(
        AskedTexts(pa.array(ids, pa.large_string()), words, words), rows, tested, settings
    )
    return {ids[place]: seen for place, seen in overlaps.items()}


def guard(folder: Path) -> str:
    path = folder / "math.jsonl.gz"
    others = [{"question": f"What do {n} apples and {n} pears cost together?"} for n in range(50)]
    lines = [{"question": QUESTION, "choices": ["36", "108"]}, *others]
    path.write_bytes(gzip.compress("\n".join(map(json.dumps, lines)).encode()))
    return str(path)


def test_an_overlap_with_a_guard_names_file_and_line(tmp_path: Path):
    settings = Overlap(guards=(guard(tmp_path),))
    rows = {"a": f"My teacher asks: {QUESTION} Help me!", "b": OTHER}
    assert overlaps_of(rows, settings) == {
        "a": Seen("overlaps_guard", "math.jsonl.gz:1, a share of 1.00")
    }


def test_an_overlap_with_the_holdout_names_its_row(tmp_path: Path):
    settings = Overlap(guards=(guard(tmp_path),))
    rows = {"a": QUESTION, "b": OTHER, "held": f"{QUESTION} Quick!"}
    assert overlaps_of(rows, settings, ("held",)) == {
        "a": Seen("overlaps_holdout", "held, a share of 1.00")
    }


def test_two_short_questions_made_to_one_pattern_do_not_overlap():
    pattern = "Form {} needs to claim back the costs of a {} abroad?"
    rows = {"a": pattern.format("Amy", "stay"), "b": pattern.format("Bob", "doctor")}
    assert overlaps_of(rows, Overlap(), ("a",)) == {}
    assert overlaps_of(rows | {"c": f"Please: {rows['a']}"}, Overlap(), ("a",)).keys() == {"c"}


def test_paraphrases_are_found_if_configured(tmp_path: Path):
    rows = {"a": REPHRASED, "b": OTHER}
    assert overlaps_of(rows, Overlap(guards=(guard(tmp_path),))) == {}
    overlaps = overlaps_of(rows, Overlap(guards=(guard(tmp_path),), paraphrases=0.45))
    assert {row: seen.objection for row, seen in overlaps.items()} == {"a": "overlaps_guard"}
    assert "math.jsonl.gz:1, a cosine of 0." in overlaps["a"].mark


def test_every_text_of_a_row_is_a_document(tmp_path: Path):
    path = tmp_path / "guard.parquet"
    row = {"query": "one", "choices": ["two", "three"], "meta": {"note": "four"}, "gold": 1}
    pq.write_table(pa.Table.from_pylist([row]), path)
    assert list(decontamination.read_documents(str(path))) == [
        ("guard.parquet:1", text) for text in ("one", "two", "three", "four")
    ]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        pytest.param("a.jsonl", b'{"text": "one"}\n{"text": ', id="cut-line"),
        pytest.param("a.parquet", b"no parquet", id="no-parquet"),
        pytest.param("a.jsonl.gz", b"not packed", id="not-packed"),
        pytest.param("a.jsonl", b"[" * 100_000, id="nested-too-deep"),
        *(
            pytest.param(f"a.jsonl.{end}", pack(b'{"text": "one"}\n' * 99)[:-9], id=f"cut-{end}")
            for end, pack in (("gz", gzip.compress), ("zst", zstandard.compress))
        ),
    ],
)
def test_unreadable_guard_documents_end_the_curation(tmp_path: Path, name: str, content: bytes):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UnreadableDocumentsError, match=f"documents of .*{name}"):
        list(decontamination.read_documents(str(tmp_path / name)))
