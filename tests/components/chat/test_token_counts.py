"""Tokens are counted as the base's tokenizer makes them, each text once."""

from pathlib import Path

import pytest

from components.chat import token_counts
from components.schema import Message
from components.store import warehouse
from components.store.warehouse import Connection
from tests.support import tiny


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    tiny.tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def con(tmp_path: Path):
    with warehouse.connect(tmp_path / "warehouse.duckdb") as con:
        yield con


def say(*texts: str) -> list[Message]:
    return [{"role": "user", "content": text} for text in texts]


def test_counts_are_those_of_the_tokenizer(con: Connection, base: Path):
    from transformers import AutoTokenizer

    counter, reference = token_counts.counter(con, base), AutoTokenizer.from_pretrained(base)
    assert counter
    said = ["Grüße", "", "two words", "<|im_end|>", "1"]
    wanted = [len(reference(text, add_special_tokens=False).input_ids) for text in said]
    assert counter.count([say(text) for text in said]) == wanted
    assert counter.count([say(*said), say(), say("1", "1")]) == [sum(wanted), 0, 2]


def test_what_was_counted_once_is_known_to_whoever_counts_next(con: Connection, base: Path):
    for _ in range(2):
        counter = token_counts.counter(con, base)
        assert counter
        assert counter.count([say("a", "bc"), say("bc")]) == [3, 2]
    found = con.execute("select tokens from curated.token_counts order by tokens").fetchall()
    assert found == [(1,), (2,)]


def test_half_a_surrogate_pair_does_not_end_a_curation(con: Connection, base: Path):
    counter = token_counts.counter(con, base)
    assert counter
    assert counter.count([say("a\ud800")]) == [2]


def test_a_base_without_a_fast_tokenizer_counts_nothing(con: Connection, tmp_path: Path):
    assert token_counts.counter(con, tmp_path) is None
    assert token_counts.counter(con, None) is None
