import gc

from components import gc_pause


def test_what_was_frozen_before_the_pauses_stays_frozen():
    gc.freeze()
    with gc_pause.released(), gc_pause.paused():
        records = [{"number": number} for number in range(10)]
    assert gc.get_freeze_count() > len(records)
