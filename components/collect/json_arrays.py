"""Read the elements of JSON arrays as lines."""

import codecs
import json
import re
from collections.abc import Iterator
from pathlib import Path

from components.collect.lines import LONGEST, MAX_KEPT, Line, Unreadable
from components.store.unpacked_file import UnpackedFile

PIECE = 2**20
BLANK = " \t\r\n"

_DECODER = json.JSONDecoder()

_STRUCTURE = re.compile(r'"(?:[^"\\]|\\.)*"|[\[{}\]]|,(?=[ \t\r\n]*\{)', re.DOTALL)
"""Matches texts, brackets, and the commas before an object."""


def read_array(path: Path) -> Iterator[Line | Unreadable]:
    """Yield the elements of a file that is one array, numbered from 1.

    An element that can't be read is unreadable by itself where its brackets show its end; otherwise
    the rest is: the next element's start is unknown.
    """
    with path.open("rb") as file:
        yield from _elements(_Text(UnpackedFile(file)))


def read_entries(text: str, key: str) -> Iterator[Line | Unreadable]:
    """Yield the elements of the first array under ``key`` of the JSON object ``text``."""
    at = text.index("{") + 1
    while True:
        name, at = _DECODER.raw_decode(text, _after_blank(text, at, ","))
        at = _after_blank(text, at, ":")
        if name == key and text[at] == "[":
            yield from _elements(_Text(None, text[at:]), stands_alone=False)
            return
        _, at = _DECODER.raw_decode(text, at)


def _after_blank(text: str, at: int, mark: str) -> int:
    while text[at] in BLANK or text[at] == mark:
        at += 1
    return at


class _Text:
    """Text that is read as needed."""

    def __init__(self, stream: UnpackedFile | None, text: str = "") -> None:
        self.at = 0
        self._stream = stream
        self._text = text
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")("surrogateescape")

    def skip_blank(self) -> str:
        """Move to the next character that is not blank and return it; "" at the end."""
        while True:
            while self.at < len(self._text) and self._text[self.at] in BLANK:
                self.at += 1
            if self.at < len(self._text):
                return self._text[self.at]
            if not self._more():
                return ""

    def value(self) -> str:
        """Return the JSON value here and move behind it; raise ``ValueError`` if there is none."""
        while True:
            try:
                _, end = _DECODER.raw_decode(self._text, self.at)
            except (ValueError, RecursionError) as error:
                if len(self._text) - self.at > LONGEST or not self._more():
                    raise ValueError(f"{error} of element") from error
                continue
            if end < len(self._text) or not self._more():  # a number may have further digits
                element = self._text[self.at : end]
                self.at = end
                return element

    def damaged_value(self) -> str | None:
        """Return the text of a value that isn't JSON and move behind it; ``None`` if it is endless.

        Its brackets show its end: a comma and an object, or the end of the array, follow it.
        """
        while (end := self._end_of_value()) is None:
            if len(self._text) - self.at > MAX_KEPT or not self._more():
                return None
        value = self._text[self.at : end]
        self.at = end
        return value

    def _end_of_value(self) -> int | None:
        depth = 0
        for match in _STRUCTURE.finditer(self._text, self.at):
            mark = match.group()
            if depth == 0 and mark in (",", "]"):
                return match.start()
            depth += (mark in ("[", "{")) - (mark in ("]", "}"))
            if depth < 0:
                return None
        return None

    def rest(self) -> bytes:
        """Return the remaining text, up to ``MAX_KEPT`` bytes."""
        while len(self._text) - self.at < MAX_KEPT and self._more():
            pass
        return _bytes(self._text[self.at :])[:MAX_KEPT]

    def _more(self) -> bool:
        if self._stream is None:
            return False
        self._text = self._text[self.at :]
        self.at = 0
        # At least double the text, so that a long value is parsed only a few times.
        piece = self._stream.read(max(PIECE, len(self._text)))
        self._text += self._decoder.decode(bytes(piece), final=not piece)
        return bool(piece)


def _elements(text: _Text, *, stands_alone: bool = True) -> Iterator[Line | Unreadable]:
    text.skip_blank()
    text.at += 1
    number = 0
    while (character := text.skip_blank()) not in ("]", ""):
        if character == "," and number:
            text.at += 1
            text.skip_blank()
        number += 1
        try:
            yield _element(number, text.value())
        except ValueError as error:
            damaged = text.damaged_value()
            if damaged is None:
                reason = f"the array is damaged from here on: {error}"
                yield Unreadable(number, text.rest(), reason)
                return
            yield Unreadable(number, _bytes(damaged), f"the element is not JSON: {error}")
    if character == "":
        yield Unreadable(number + 1, b"", "the array ends without its ]")
        return
    text.at += 1
    if stands_alone and text.skip_blank():
        yield Unreadable(number + 1, text.rest(), "text follows the array; expected its end")


def _element(number: int, text: str) -> Line | Unreadable:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        content = _bytes(text)
        return Unreadable(
            number, content, f"the element is not UTF-8: byte 0x{ord(text[error.start]) & 0xFF:02x}"
        )
    return Line(number, text)


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogateescape")
