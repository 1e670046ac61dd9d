"""Turn a model's text, as it arrives, into what a client may see at once.

Text streams; what may become a call is held back until it is whole. What was streamed is always the
beginning of what ``components.chat.dialects`` reads from the whole text, and ends equal to it.
"""

import json
import re
from dataclasses import dataclass

from components.chat import dialects
from components.chat.dialects import Dialect
from components.schema import Call

_OPENED, _CLOSED = "<think>", "</think>"
_SIGNS = re.compile(r'["\\{}]')
_AFTER_BRACE = re.compile(r"\{\s*(\S)")
_BETWEEN = "; \n"  # what separates calls in Llama's form, and is no text


@dataclass(frozen=True, slots=True)
class Delta:
    """What became certain: text, whole calls, or neither."""

    text: str = ""
    calls: tuple[Call, ...] = ()


NOTHING = Delta()


class _ObjectScan:
    """Finds the end of a JSON object that arrives in pieces."""

    __slots__ = ("_depth", "_escaped", "_is_quoted", "_position")

    def __init__(self) -> None:
        self._position = self._depth = 0
        self._escaped = -1
        self._is_quoted = False

    def find_end(self, text: str) -> int | None:
        """Return where the object that begins ``text`` ends; ``None`` if it does not end yet.

        ``text`` begins with the text of the last call, which is not read again.
        """
        for sign in _SIGNS.finditer(text, self._position):
            place, character = sign.start(), sign[0]
            if place == self._escaped:
                continue
            if character == "\\":
                self._escaped = place + 1 if self._is_quoted else -1
            elif character == '"':
                self._is_quoted = not self._is_quoted
            elif not self._is_quoted:
                self._depth += 1 if character == "{" else -1
                if self._depth == 0:
                    return place + 1
        self._position = len(text)
        return None


class StreamedAnswer:
    """Reads one answer piece by piece.

    Args:
        form: The syntax of its calls.
        reads_calls: Whether tools were offered; else what looks like a call is text.
    """

    def __init__(self, form: Dialect, *, reads_calls: bool) -> None:
        self._form: Dialect = form
        self._reads_calls = reads_calls
        self._parts: list[str] = []
        self._is_thinking = form != "written"  # its thoughts may still begin
        self._thought = ""  # text that may be one, or begin with it
        self._rest = ""  # text whose tags are not certain yet
        self._held = ""  # text from where a call may begin
        self._scan = _ObjectScan()  # of the held text
        self._blank = ""  # white space that is text only if text follows
        self._sent: list[str] = []  # text that the client has
        self._calls: list[Call] = []

    @property
    def raw(self) -> str:
        """The model's text so far."""
        return "".join(self._parts)

    @property
    def text(self) -> str:
        """The text that became certain so far."""
        return "".join(self._sent)

    @property
    def calls(self) -> tuple[Call, ...]:
        """The calls that became certain so far."""
        return tuple(self._calls)

    def feed(self, piece: str) -> Delta:
        """Add a piece of the model's text; return what is certain now."""
        self._parts.append(piece)
        answered = self._after_thought(piece) if self._is_thinking else piece
        if not self._reads_calls:
            return Delta(self._send(answered))
        plain = answered if self._form == "written" else self._without_tags(answered)
        return self._split(plain) if plain or self._held else NOTHING

    def finish(self, *, is_cut: bool = False) -> Delta:
        """Return what was held back; from now on ``text`` and ``calls`` are the whole answer.

        ``is_cut``: it ended at its length. Then what was held back is text: inside of half a call's
        arguments, or of half a thought, may be what looks like a call.
        """
        if is_cut and self._reads_calls:
            return Delta(self._send(self._thought + self._held + self._rest))
        answer = dialects.read_answer(self._form, self.raw, offers_tools=self._reads_calls)
        text = answer.text[len(self.text) :]
        calls = answer.calls[len(self._calls) :]
        self._sent.append(text)
        self._calls.extend(calls)
        return Delta(text, calls)

    def _after_thought(self, piece: str) -> str:
        """Return what follows the thought that begins the text; hold back what may be one."""
        text = self._thought + piece
        begun = text.lstrip()
        if _OPENED.startswith(begun) or (begun.startswith(_OPENED) and _CLOSED not in begun):
            self._thought = text
            return ""
        self._thought, self._is_thinking = "", False
        return begun[begun.index(_CLOSED) + len(_CLOSED) :] if begun.startswith(_OPENED) else text

    def _without_tags(self, answered: str) -> str:
        """Return the next text without tags; hold back what may begin one."""
        text = self._rest + answered
        self._rest = ""
        parts: list[str] = []
        while (start := text.find("<")) >= 0:
            parts.append(text[:start])
            text = text[start:]
            tag = next((tag for tag in dialects.TAGS if text.startswith(tag)), None)
            if tag is not None:
                text = text[len(tag) :]
            elif any(tag.startswith(text) for tag in dialects.TAGS):
                self._rest, text = text, ""
            else:
                parts.append("<")
                text = text[1:]
        parts.append(text)
        return "".join(parts)

    def _split(self, plain: str) -> Delta:
        """Separate calls from text; hold back an object that is not whole."""
        text, calls = self._held + plain, list[Call]()
        shown: list[str] = []
        scan = self._scan if self._held else _ObjectScan()
        while (start := text.find("{")) >= 0:
            shown.append(text[:start])
            text = text[start:]
            end = scan.find_end(text)
            if end is None and _may_be_call(text):
                self._scan = scan
                break
            scan = _ObjectScan()
            call = None if end is None else _call(self._form, text[:end])
            if call is None:
                shown.append("{")
                text = text[1:]
            else:
                calls.append(call)
                text = text[end:]
        else:
            shown.append(text)
            text = ""
        self._held = text
        self._calls.extend(calls)
        return Delta(self._send("".join(shown)), tuple(calls))

    def _send(self, text: str) -> str:
        """Return the text to send: without white space at the ends of the answer."""
        text = self._blank + text
        if not self._sent:
            # In Llama's form also the separators of calls, until other text has come.
            if self._form == "llama3" and self._reads_calls and not text.strip(_BETWEEN):
                self._blank = text
                return ""
            text = text.lstrip()
        shown = text.rstrip()
        self._blank = text[len(shown) :]
        if shown:
            self._sent.append(shown)
        return shown


def _may_be_call(text: str) -> bool:
    """Return whether an object that has begun may become a call: it has a key, or none yet."""
    following = _AFTER_BRACE.match(text)
    return following is None or following[1] == '"'


def _call(form: Dialect, text: str) -> Call | None:
    """Return the call that an object is; ``None`` if it is text."""
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return None
    answer = dialects.read_answer(form, text, offers_tools=True)
    return answer.calls[0] if len(answer.calls) == 1 and not answer.text else None
