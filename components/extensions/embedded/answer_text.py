"""The text of an answer while its tokens come: whole characters only, and never a stop string."""

from collections.abc import Callable, Sequence

HALF = "\ufffd"  # what a tokenizer decodes the first bytes of a character to

Decode = Callable[[Sequence[int]], str]


class AnswerText:
    """Tokens in, text out, as soon as no later token can change it."""

    def __init__(self, decode: Decode, stops: Sequence[str]) -> None:
        self._decode, self._stops = decode, [stop for stop in stops if stop]
        self._tokens: list[int] = []
        # Tokens from ``_context`` to ``_read`` are decoded again before each new one: some
        # tokenizers write a token differently at the beginning of a text.
        self._context = self._read = 0
        self._held = ""
        self.is_stopped = False

    def add(self, token: int) -> str:
        """Add a token; return the text that is now certain."""
        self._tokens.append(token)
        before = self._decode(self._tokens[self._context : self._read])
        now = self._decode(self._tokens[self._context :])
        if len(now) <= len(before) or now.endswith(HALF):
            return ""
        self._context, self._read = self._read, len(self._tokens)
        return self._pass(now[len(before) :])

    def finish(self) -> str:
        """Return the rest, without a character of which only some bytes came."""
        if self.is_stopped:
            return ""
        before = self._decode(self._tokens[self._context : self._read])
        now = self._decode(self._tokens[self._context :])
        rest = self._pass(now[len(before) :].rstrip(HALF))
        held, self._held = self._held, ""
        return rest + ("" if self.is_stopped else held)

    def _pass(self, text: str) -> str:
        text = self._held + text
        places = [place for stop in self._stops if (place := text.find(stop)) >= 0]
        if places:
            self.is_stopped, self._held = True, ""
            return text[: min(places)]
        keep = max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]


def _overlap(text: str, stop: str) -> int:
    # how much of the text's end may be the beginning of a stop string
    longest = min(len(text), len(stop) - 1)
    return next((size for size in range(longest, 0, -1) if text.endswith(stop[:size])), 0)
