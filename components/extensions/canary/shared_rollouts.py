"""A canary's evidence, standing and end, of all gateways that share an object store.

Gateways append what they saw to one log: numbered objects, each created on the condition that there
is none. So all of them read the same lines in the same order, and their looks are looks at one
sequence, as those of one gateway are: who looks, and how many, costs no false alarm. The end is an
object that is created once, too: the first gateway's end is everybody's.
"""

import hashlib
import json
import os
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from components.extensions.canary import rollout_evidence
from components.extensions.canary.rollout_evidence import EvidenceLine
from components.extensions.machines.object_store import DamagedObjectError, ObjectStore
from components.schema import Json
from components.store import manifest

PLACE = "rollouts"  # in the store, ``<order id>`` below it

LARGEST_CHUNK = 2**20  # bytes of one object
MAX_CHUNKS = 100  # that are pulled at once: a gateway that begins late catches up in turns


@dataclass(slots=True)
class _Progress:
    chunks: int = 0  # that were read
    size: int = 0  # bytes of them in the local copy
    sent: int = 0  # bytes of this gateway's own file that the log has


class SharedEvidence:
    """The log of a canary, with a copy in a local file.

    Args:
        store: Where the log is.
        rollout: The id of the canary's order.
        copy: The local file; every machine's is a beginning of the same one.
        own: The file to which this gateway appends; without one, the log is only read.
        gateway: The id of this gateway.

    Raises:
        OSError: The copy can't be opened.
    """

    def __init__(
        self,
        store: ObjectStore,
        rollout: str,
        copy: Path,
        own: Path | None = None,
        gateway: str = "",
    ) -> None:
        self._store, self._place = store, f"{PLACE}/{rollout}"
        self._copy, self._own, self._gateway = copy, own, gateway
        self._progress_path = copy.with_suffix(".progress")
        copy.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._lines = list[EvidenceLine]()  # of others, that were read before the store failed
        descriptor = os.open(copy, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            self._progress = self._restored(os.fstat(descriptor).st_size)
            if own is not None:
                size = own.stat().st_size if own.exists() else 0
                self._progress.sent = min(self._progress.sent, size)
            os.truncate(descriptor, self._progress.size)  # a kill left more, which is read again
        finally:
            os.close(descriptor)

    def exchange(self, *, is_sending: bool) -> list[EvidenceLine]:
        """Append what is new at others to the copy, and what is new here to the log.

        Return the lines of others that were read. A call waits for one in another thread.

        Raises:
            DamagedObjectError: An object of the log is not what a gateway wrote.
            OSError: The copy can't be written, or the store can't be reached.
        """
        with self._lock:
            self._exchange(is_sending=is_sending)
            lines, self._lines = self._lines, []
            return lines

    def _exchange(self, *, is_sending: bool) -> None:
        self._pull()
        while is_sending and (content := self._unsent()):
            body = content.decode("ascii", "replace")  # it is ASCII, unless the disk is damaged
            header = {
                "gateway": self._gateway,
                "end": self._progress.sent + len(content),
                "sha256": hashlib.sha256(body.encode()).hexdigest(),
            }
            name = f"{self._place}/{self._progress.chunks:08d}"
            self._store.create(name, f"{json.dumps(header)}\n{body}")
            self._pull()  # this one, or another gateway's that was first

    @property
    def size(self) -> int:
        """The bytes of the copy."""
        return self._progress.size

    def _pull(self) -> None:
        progress = self._progress
        before = progress.chunks
        for _ in range(MAX_CHUNKS):
            name = f"{self._place}/{progress.chunks:08d}"
            text = self._store.read(name)
            if text is None:
                break
            gateway, end, body = _read_chunk(f"{self._store.url}/{name}", text)
            with self._copy.open("r+b") as file:
                file.seek(progress.size)
                file.write(body)
            progress.chunks += 1
            progress.size += len(body)
            if gateway == self._gateway and self._has_written(body, end):
                progress.sent = end
            else:
                read = map(rollout_evidence.read_line, body.splitlines(keepends=True))
                self._lines += [line for line in read if line is not None]
        if progress.chunks != before:
            self._keep()

    def _has_written(self, body: bytes, end: int) -> bool:
        """Return whether a chunk is of this gateway's own file, up to this byte.

        One of a home that was copied has this one's id, and other lines; and after a power failure
        this one's last lines may miss.
        """
        begin = end - len(body)
        if self._own is None or begin < 0:
            return False
        with suppress(FileNotFoundError), self._own.open("rb") as file:
            file.seek(begin)
            return file.read(len(body)) == body
        return False

    def _unsent(self) -> bytes:
        """Return whole lines of this gateway that the log does not have."""
        if self._own is None:
            return b""
        with suppress(FileNotFoundError), self._own.open("rb") as file:
            file.seek(self._progress.sent)
            content = file.read(LARGEST_CHUNK)
            return content[: content.rfind(b"\n") + 1]
        return b""

    def _keep(self) -> None:
        progress = self._progress
        kept = {"chunks": progress.chunks, "size": progress.size, "sent": progress.sent}
        manifest.write_atomically(self._progress_path, json.dumps(kept))

    def _restored(self, size: int) -> _Progress:
        try:
            kept = json.loads(self._progress_path.read_bytes())
        except (FileNotFoundError, ValueError):
            return _Progress()
        match kept:
            case {"chunks": int(chunks), "size": int(known), "sent": int(sent)} if known <= size:
                return _Progress(chunks, known, sent)
            case _:
                return _Progress()


def end_once(store: ObjectStore, rollout: str, content: dict[str, Json]) -> dict[str, Json]:
    """End a canary for all gateways; return the end that counts, which is the first one's.

    Raises:
        OSError: The store can't be reached.
        DamagedObjectError: The end that is there is not one.
    """
    place = f"{PLACE}/{rollout}/end.json"
    return _read_object(f"{store.url}/{place}", store.create(place, json.dumps(content)))


def read_end(store: ObjectStore, rollout: str) -> dict[str, Json] | None:
    """Return a canary's end, a status of its gateway; ``None`` if it has not ended.

    Raises:
        OSError: The store can't be reached.
        DamagedObjectError: The end that is there is not one.
    """
    place = f"{PLACE}/{rollout}/end.json"
    text = store.read(place)
    return None if text is None else _read_object(f"{store.url}/{place}", text)


def write_standing(store: ObjectStore, rollout: str, content: dict[str, Json]) -> None:
    """Write how a canary stands; the last gateway to write it wins."""
    store.write(f"{PLACE}/{rollout}/status.json", json.dumps(content))


def read_standing(store: ObjectStore, rollout: str) -> str | None:
    """Return the text of how a canary stands or, if it has ended, of its end."""
    end = store.read(f"{PLACE}/{rollout}/end.json")
    return end if end is not None else store.read(f"{PLACE}/{rollout}/status.json")


def remove_evidence(store: ObjectStore, rollout: str) -> None:
    """Delete the log of a canary that has ended; its end stays."""
    if store.read(f"{PLACE}/{rollout}/end.json") is None:
        return
    for name in store.names(f"{PLACE}/{rollout}"):
        if name.isdecimal():
            store.remove_file(f"{PLACE}/{rollout}/{name}")


def _read_chunk(name: str, text: str) -> tuple[str, int, bytes]:
    head, _, rest = text.partition("\n")
    body = rest.encode()
    match _read_object(name, head):
        case {"gateway": str(gateway), "end": int(end), "sha256": str(digest)} if (
            digest == hashlib.sha256(body).hexdigest()
        ):
            return gateway, end, body
        case _:
            raise DamagedObjectError(
                f"reading {name}: expected a head and lines of evidence with the head's digest; "
                "stop this canary, and start it again"
            )


def _read_object(name: str, text: str) -> dict[str, Json]:
    try:
        content: Json = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DamagedObjectError(f"reading {name}: it is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise DamagedObjectError(f"reading {name}: expected an object")
    return content
