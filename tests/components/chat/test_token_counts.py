"""Tokens are counted with the base's tokenizer, and each text once."""

from pathlib import Path

import pytest

from components.chat import token_counts
from components.schema import Message
from components.store.warehouse import Connection
from tests.support import tiny


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    tiny.tokenizer().save_pretrained(folder)
    return folder


def conversation(*texts: str) -> list[Message]:
    return [{"role": "user", "content": text} for text in texts]


def test_counts_equal_the_tokenizers(con: Connection, base: Path):
    from transformers import AutoTokenizer

    counter, reference = token_counts.counter(con, base), AutoTokenizer.from_pretrained(base)
    assert counter
    texts = ["Grüße", "", "two words", "<|im_end|>", "1"]
    expected = [len(reference(text, add_special_tokens=False).input_ids) for text in texts]
    assert counter.count([conversation(text) for text in texts]) == expected
    conversations = [conversation(*texts), conversation(), conversation("1", "1")]
    assert counter.count(conversations) == [sum(expected), 0, 2]


def test_counts_are_cached_for_later_counters(con: Connection, base: Path):
    for _ in range(2):
        counter = token_counts.counter(con, base)
        assert counter
        assert counter.count([conversation("a", "bc"), conversation("bc")]) == [3, 2]
        assert counter.count([conversation("bc"), conversation("def", "a")]) == [2, 4]
    rows = con.execute("select tokens from curated.token_counts order by tokens").fetchall()
    assert rows == [(1,), (2,), (3,)]


def test_many_new_texts_are_found_again(con: Connection, base: Path):
    counter = token_counts.counter(con, base)
    assert counter
    conversations = [conversation(str(n)) for n in range(token_counts.MAX_COUNTED + 2)]
    for part in (conversations[:-1], conversations[-2:], conversations[:1]):
        assert counter.count(part) == [len(messages[0]["content"]) for messages in part]
    assert con.execute("select count(*) from curated.token_counts").fetchall() == [
        (len(conversations),)
    ]


def test_a_lone_surrogate_is_counted(con: Connection, base: Path):
    counter = token_counts.counter(con, base)
    assert counter
    assert counter.count([conversation("a\ud800")]) == [2]


def test_a_base_without_a_fast_tokenizer_has_no_counter(con: Connection, tmp_path: Path):
    assert token_counts.counter(con, tmp_path) is None
    assert token_counts.counter(con, None) is None
