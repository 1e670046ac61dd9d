"""Hold GPUs until killed, see ``flows.lease``: ``holder FOLDER COUNT DOING DEVICE...``."""

import sys
import time
from functools import partial
from pathlib import Path

from flows import lease

say = partial(print, flush=True)
folder, count, doing, *devices = sys.argv[1:]
with lease.held(Path(folder), devices, int(count), doing, say) as taken:
    say("holds", *taken)
    time.sleep(60)
