"""Keep Python's garbage collector from looking through millions of records without cycles."""

import gc
from collections.abc import Generator
from contextlib import contextmanager
from functools import cache


@contextmanager
def paused() -> Generator[None]:
    """Don't collect in the block, which makes records and no cycles, nor look at them after it.

    Half of the time of a step over all rows went into this.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()


@contextmanager
def released() -> Generator[None]:
    """Let the collector look again, after the block, at what was made in pauses within it.

    Unless something was frozen before: the collector would look through that, too.
    """
    was_frozen = _is_used_by_others()
    try:
        yield
    finally:
        if not was_frozen:
            gc.unfreeze()


@cache
def _is_used_by_others() -> bool:
    """Return whether something was frozen before the first pause; counting looks at all of it."""
    return gc.get_freeze_count() > 0
