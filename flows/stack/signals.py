"""Wait for a while, or until a child dies or somebody asks to stop."""

import os
import select
import signal


class Stopped(Exception):  # noqa: N818  (no error: somebody asked)
    """Somebody asked this process to stop."""


class Signals:
    """The signals of a supervisor, as a thing to wait on: none is lost between two waits."""

    def __init__(self) -> None:
        self._read, write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(write, False)
        self._stopping = False
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, self._wake)
        for request in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(request, self._stop)

    def wait(self, seconds: float) -> None:
        """Sleep until a signal comes, at most ``seconds``; raise ``Stopped`` if asked to stop."""
        if not self._stopping and select.select([self._read], [], [], seconds)[0]:
            os.read(self._read, 4096)
        if self._stopping:
            raise Stopped

    def _wake(self, *_: object) -> None:
        """Do nothing: a signal without a handler would not end the wait."""

    def _stop(self, *_: object) -> None:
        self._stopping = True
