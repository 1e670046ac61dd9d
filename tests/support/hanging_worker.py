"""A worker process that never loads."""

import time

time.sleep(600)
