"""Text leaves whole and in time, whatever the tokens, and stop strings never do."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.extensions.embedded.answer_text import AnswerText
from tests.support import tiny
from tests.support.cases import cases

TOKENIZER: Any = tiny.tokenizer()


def decode(tokens: Sequence[int]) -> str:
    return TOKENIZER.decode([*tokens], skip_special_tokens=True)


def stream(text: str, stops: list[str]) -> tuple[list[str], bool]:
    """Send a text byte by byte; return the pieces."""
    answer = AnswerText(decode, stops)
    pieces: list[str] = []
    for token in TOKENIZER.encode(text, add_special_tokens=False):
        pieces.append(answer.add(token))
        if answer.is_stopped:
            break
    return [*pieces, answer.finish()], answer.is_stopped


TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\ufffd"), max_size=30)


@given(text=TEXTS)
def test_pieces_are_whole_characters_and_add_up_to_the_text(text: str) -> None:
    pieces, _ = stream(text, [])
    assert "".join(pieces) == text
    assert not any("\ufffd" in piece for piece in pieces)


@cases(100)
@given(text=st.text("ab🦜", max_size=12), stops=st.lists(st.text("ab🦜", min_size=1), max_size=3))
def test_an_answer_ends_before_the_first_stop_string(text: str, stops: list[str]) -> None:
    pieces, is_stopped = stream(text, stops)
    ends = [(text.find(stop) + len(stop), text.find(stop)) for stop in stops if stop in text]
    assert is_stopped == bool(ends)
    earliest = min(end for end, _ in ends) if ends else 0
    expected = min(start for end, start in ends if end == earliest) if ends else len(text)
    assert "".join(pieces) == text[:expected]


def test_text_before_a_stop_string_does_not_wait_for_the_end() -> None:
    pieces, _ = stream("hello\nUse", ["\nUser:"])
    assert "".join(pieces[:5]) == "hello"
    assert "".join(pieces[:-1]) == "hello"
    assert pieces[-1] == "\nUse"


@given(cut=st.integers(1, 3))
def test_a_character_that_is_cut_off_is_left_out(cut: int) -> None:
    tokens = TOKENIZER.encode("ok 🦜", add_special_tokens=False)
    answer = AnswerText(decode, [])
    assert "".join(answer.add(token) for token in tokens[:-cut]) + answer.finish() == "ok "


@pytest.mark.parametrize("junk", [b"\xff", b"\xe2\x82", b"\x80\x80", b"\xf0\x9f\xf0\x9f"])
def test_bytes_that_are_no_character_read_as_in_the_whole_answer(junk: bytes) -> None:
    byte_tokens = _byte_tokens()
    tokens = [byte_tokens[byte] for byte in b"a" + junk + b"b"]
    answer = AnswerText(decode, [])
    assert "".join(map(answer.add, tokens)) + answer.finish() == decode(tokens)


def _byte_tokens() -> dict[int, int]:
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    return {byte: TOKENIZER.convert_tokens_to_ids(c) for byte, c in bytes_to_unicode().items()}
