"""Kept arrays are all that was saved, or none: whatever a killed process or a full disk left."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.curate.near import hashed_words, word_runs
from components.curate.near.kept_arrays import KeptArrays
from components.curate.near.kept_words import KeptWords
from tests.support import small_disk
from tests.support.cases import cases

NAMES = ("a", "b")
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["append", "write", "read", "save", "open"]),
        st.sampled_from(NAMES),
        st.lists(st.integers(0, 99), max_size=3),
    ),
    max_size=12,
)


def values_of(kept: KeptArrays) -> dict[str, list[int]]:
    return {name: values for name in NAMES if (values := kept.read(name, np.int64).tolist())}


def left(folder: Path, to: Path) -> dict[str, list[int]]:
    """Return what the next process finds if this one is killed."""
    shutil.copytree(folder, to)
    return values_of(KeptArrays(to, "1"))


@given(STEPS)
@cases(100)
def test_a_killed_process_leaves_what_was_saved_or_nothing(
    steps: Sequence[tuple[str, str, list[int]]],
):
    with TemporaryDirectory() as scratch:
        folder = Path(scratch) / "kept"
        kept, saved = KeptArrays(folder, "1"), dict[str, list[int]]()
        held, used = dict[str, list[int]](), set[str]()
        for number, (step, name, values) in enumerate(steps):
            match step:
                case "append":
                    kept.append(name, np.array(values, np.int64))
                    held[name] = held.get(name, []) + values
                    used.add(name)
                case "write":
                    kept.write(name, np.array(values, np.int64))
                    held[name] = values
                    used.add(name)
                case "read":
                    assert kept.read(name, np.int64).tolist() == held.get(name, [])
                    used.add(name)
                case "save":
                    kept.save()
                    held = {each: held[each] for each in held.keys() & used}
                    saved = without_empty(held)
                case _:
                    kept, used = KeptArrays(folder, "1"), {*NAMES}
                    held = values_of(kept)
                    assert held in (saved, {})
            assert left(folder, Path(scratch) / f"{number}") in (saved, {})


def without_empty(arrays: Mapping[str, list[int]]) -> dict[str, list[int]]:
    return {name: values for name, values in arrays.items() if values}


@pytest.mark.parametrize("append", [True, False], ids=["append", "replace"])
def test_a_full_disk_leaves_what_was_saved_or_nothing(append: bool, tmp_path: Path):
    with small_disk.mounted(tmp_path / "disk", "64k") as disk:
        kept = KeptArrays(disk / "kept", "1")
        kept.append("a", np.arange(100))
        kept.save()
        with pytest.raises(OSError, match="No space left"):
            (kept.append if append else kept.write)("a", np.zeros(1 << 20, np.int64))
        assert left(disk / "kept", tmp_path / "left") in ({"a": [*range(100)]}, {})


def test_what_nothing_asked_for_is_dropped(tmp_path: Path):
    for asked in (["a", "b"], ["b"]):
        kept = KeptArrays(tmp_path, "1")
        for name in asked:
            if not len(kept.read(name, np.int64)):
                kept.write(name, np.arange(3))
        kept.save()
    kept = KeptArrays(tmp_path, "1")
    assert kept.read("b", np.int64).tolist() == [0, 1, 2]
    assert not (tmp_path / "a").exists()


def test_words_of_texts_that_left_the_log_are_dropped_once_they_are_most(tmp_path: Path):
    texts = [f"text number {number} of many that have more than a run" for number in range(10)]
    nights = [(0, texts), (10, texts[4:]), (10, texts[7:]), (3, texts[7:])]
    for before, asked in nights:
        kept = KeptArrays(tmp_path, "1")
        words = KeptWords(kept)
        assert len(words.column) == before
        numbers = words.add_column(pa.array(asked, pa.large_string()))
        expected = hashed_words.column_of(pa.array(asked, pa.large_string())).words()
        assert words.column.at(numbers).words().hashes.tolist() == expected.hashes.tolist()
        bits = np.concatenate([*words.runs.chunks(numbers)])
        runs = word_runs.runs_of(expected).hashes
        assert bits.tolist() == word_runs.first_bits(runs).tolist()
        words.drop_others()
        kept.save()
