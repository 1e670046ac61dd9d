"""Cut a JSON array into its elements, verbatim, reading no more of it than the next needs."""

import codecs
import json
from collections.abc import Iterator
from pathlib import Path

from components.collect.lines import LONGEST, MOST_KEPT, Line, Unreadable
from components.collect.unpacking import Unpacked

PIECE = 2**20
BLANK = " \t\r\n"

_DECODER = json.JSONDecoder()


def read(path: Path) -> Iterator[Line | Unreadable]:
    """Go through a file that is one array, numbering its elements from 1.

    From where it is damaged the rest is unreadable: nothing tells where the next element begins.
    """
    with path.open("rb") as file:
        yield from _elements(_Text(Unpacked(file)))


def entries(text: str, key: str) -> Iterator[Line | Unreadable]:
    """Go through the elements of the array under ``key`` of the object that ``text`` is."""
    at = 0
    while True:
        at = text.index(f'"{key}"', at) + len(key) + 2
        begin = at + len(text[at:]) - len(text[at:].lstrip(BLANK + ":"))
        if text[begin] == "[":
            yield from _elements(_Text(None, text[begin:]), stands_alone=False)
            return


class _Text:
    """Text that is read on as it is needed."""

    def __init__(self, stream: Unpacked | None, text: str = "") -> None:
        self.at = 0
        self._stream = stream
        self._text = text
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()

    def skip_blank(self) -> str:
        """Go to the next character that is not blank, and show it; "" at the end."""
        while True:
            while self.at < len(self._text) and self._text[self.at] in BLANK:
                self.at += 1
            if self.at < len(self._text):
                return self._text[self.at]
            if not self._more():
                return ""

    def value(self) -> str:
        """Take the JSON value that stands here; ``ValueError`` says why there is none."""
        while True:
            try:
                _, end = _DECODER.raw_decode(self._text, self.at)
            except (ValueError, RecursionError) as error:
                if len(self._text) - self.at > LONGEST or not self._more():
                    raise ValueError(f"{error} of element") from error
                continue
            if end < len(self._text) or not self._more():  # a number might go on
                found = self._text[self.at : end]
                self.at = end
                return found

    def rest(self) -> bytes:
        """Give what is left, up to ``MOST_KEPT``."""
        while len(self._text) - self.at < MOST_KEPT and self._more():
            pass
        return self._text[self.at :].encode()[:MOST_KEPT]

    def _more(self) -> bool:
        """Read at least as much again as there is, so that a long value is not tried often."""
        if self._stream is None:
            return False
        self._text = self._text[self.at :]
        self.at = 0
        piece = self._stream.after(bytearray(), max(PIECE, len(self._text)))
        self._text += self._decoder.decode(bytes(piece), final=not piece)
        return bool(piece)


def _elements(text: _Text, *, stands_alone: bool = True) -> Iterator[Line | Unreadable]:
    text.skip_blank()
    text.at += 1
    number = 0
    try:
        while (found := text.skip_blank()) not in ("]", ""):
            if found == "," and number:
                text.at += 1
                text.skip_blank()
            number += 1
            yield Line(number, text.value())
        if found == "":
            yield Unreadable(number + 1, b"", "the array ends without its ]")
            return
        text.at += 1
        if stands_alone and text.skip_blank():
            yield Unreadable(number + 1, text.rest(), "something follows the array; wants an end")
    except ValueError as error:
        rest = b"" if isinstance(error, UnicodeDecodeError) else text.rest()
        yield Unreadable(number, rest, f"the array is damaged from here on: {error}")
