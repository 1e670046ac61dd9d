"""Show what a text hides: it could steer a terminal, or look like another text."""

import unicodedata

# Marks that change the direction of writing, which makes a text look like another one.
TURNING = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def visible(text: str) -> str:
    """Replace control characters, and marks that change the writing direction, by their codes."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_visible(character) for character in text)


def _visible(character: str) -> str:
    is_control = unicodedata.category(character) in ("Cc", "Cs") and character not in "\n\t"
    return f"\\u{ord(character):04x}" if is_control or character in TURNING else character
