"""Name what an answer says, where requests of different answers can't be the same request.

Calls, labels and short JSON are right or wrong: of two requests alike, one may want the one and one
the other. Of longer texts nobody can tell whether they say the same in other words.
"""

import json
import re
from typing import cast

from components.curate.split import LABEL_CHARACTERS
from components.schema import Answer, Json

FREE = ""
"""The name of every longer text."""

_THOUGHTS = re.compile(r"^\s*<think>.*?</think>", re.DOTALL)


def name(answer: Answer) -> str:
    """Name an answer: equal names for equal calls, labels and short JSON, whatever their writing.

    Of calls and JSON longer texts don't count, nor does what was thought before the answer.
    """
    if answer.calls:
        calls = [_short({"name": call.name, "arguments": call.arguments}) for call in answer.calls]
        return _write(sorted(calls, key=_write))
    text = " ".join(_THOUGHTS.sub("", answer.text).casefold().split())
    if text[:1] in ("{", "["):
        try:
            return _write(_short(cast("Json", json.loads(text))))
        except (ValueError, RecursionError):
            return FREE if len(text) > LABEL_CHARACTERS else text
    return FREE if len(text) > LABEL_CHARACTERS else text


def _short(value: Json) -> Json:
    """Leave out longer texts, and read whole numbers as such."""
    match value:
        case str():
            text = " ".join(value.casefold().split())
            return text if len(text) <= LABEL_CHARACTERS else None
        case float() if value.is_integer():
            return int(value)
        case list():
            return [_short(one) for one in value]
        case dict():
            return {key: _short(one) for key, one in value.items()}
        case _:
            return value


def _write(value: Json) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)
