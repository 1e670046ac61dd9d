import gc

from components import collector


def test_what_was_frozen_before_the_pauses_stays_frozen():
    gc.freeze()
    with collector.released(), collector.paused():
        records = [{"number": number} for number in range(10)]
    assert gc.get_freeze_count() > len(records)
