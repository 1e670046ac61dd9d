"""Hold GPUs until killed, see ``flows.jobs.launch``: ``holder FOLDER COUNT DOING DEVICE...``."""

import sys
import time
from functools import partial
from pathlib import Path

from flows.jobs import launch

report = partial(print, flush=True)
folder, count, doing, *devices = sys.argv[1:]
with launch.hold_gpus(Path(folder), devices, int(count), doing, report) as taken:
    report("holds", *taken)
    time.sleep(60)
