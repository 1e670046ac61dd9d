"""Keep a single row from ending a curation, or from holding it up.

A row is what somebody logged, so any rule may meet one that its author did not think of. Such a row
gets a verdict with the error's name and the place where it was raised; the others go on. What a row
did not cause, such as a package that is not installed, still ends the curation.
"""

import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType

UNJUDGEABLE = "unjudgeable"
"""The verdict on a row that a rule could not be asked about."""

ROW_SECONDS = 10.0
"""Processor time that one row may take: a thousand times what a long conversation takes. Of wall
time a busy machine would need more, and other rows would get the verdict."""

AGAIN_SECONDS = 1.0
"""A library may swallow the error, so it is raised again."""

NO_FAULT_OF_A_ROW = (ImportError, OSError)

_OURS = "components.curate."


class RowTimeoutError(Exception):
    """A row took more processor time than it may."""


class UnencodableTextError(ValueError):
    """A text that holds half a character, which no other program could read."""


@contextmanager
def limited(seconds: float = ROW_SECONDS) -> Generator[None]:
    """Raise ``RowTimeoutError`` within the block once it has taken so much processor time.

    Only the main thread can be interrupted; in another one there is no limit (``crew`` takes care
    that rows are judged in a main thread).
    """
    if not is_limitable():
        yield
        return
    before = signal.signal(signal.SIGVTALRM, _interrupt)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds, AGAIN_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def is_limitable() -> bool:
    """Tell whether a row can be interrupted in this thread."""
    return threading.current_thread() is threading.main_thread()


def reason(error: Exception) -> str:
    """Name an error and where in curation it was raised: ``TypeError in rules.calls.unknown_tool``.

    It quotes nothing of the row.

    Raises:
        Exception: The error itself, if no row can have caused it.
    """
    if isinstance(error, NO_FAULT_OF_A_ROW):
        raise error
    place, step = "", error.__traceback__
    while step is not None:
        module = str(step.tb_frame.f_globals.get("__name__", ""))
        if module.startswith(_OURS) and module != __name__:
            place = f"{module.removeprefix(_OURS)}.{step.tb_frame.f_code.co_name}"
        step = step.tb_next
    return f"{type(error).__name__} in {place}" if place else type(error).__name__


def require_text(*texts: str | None) -> None:
    """Check that texts can be handed to Arrow, DuckDB and files.

    Raises:
        UnencodableTextError: One of them holds half a character.
    """
    try:
        for text in texts:
            if text is not None and not text.isascii():
                text.encode()
    except UnicodeEncodeError as error:
        raise UnencodableTextError(f"character {error.start} is half a character") from error


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise RowTimeoutError(f"took more than {ROW_SECONDS:g} s of processor time")
