"""Show a job to other machines, and keep its checkpoints where another one can resume it."""

import json
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from components.store import manifest, output_folders
from components.store.shared_files import DamagedObjectError, SharedFiles, StoreError
from components.train import checkpoints
from flows import settings
from flows.settings import Settings

EACH_SECONDS = 2.0  # between two looks at what a job has written

SHOWN = ("spec.json", "progress.json", "log.txt", "work.json")


@contextmanager
def shared(folder: Path, adapter: Path | None) -> Generator[None]:
    """Push what a job writes while the block runs, and before it pull a newer checkpoint.

    ``adapter`` is the folder of what it trains, if it does.

    Does nothing where the home has no object store. A store that can't be reached for a while
    delays this, and stops no training.
    """
    home = settings.load()
    if home.store is None or not folder.is_relative_to(home.jobs):
        yield
        return
    sharing = _Sharing(home, home.store, folder, adapter)
    if adapter is not None:
        pull_checkpoints(home, adapter)
    is_over = threading.Event()
    thread = threading.Thread(target=sharing.until, args=(is_over,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def fetch(file: Path) -> None:
    """Copy a file of a job from the object store, if it has it."""
    home = settings.load()
    if home.store and (text := home.store.read(home.portable(file))) is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        manifest.write_atomically(file, text)


def forget_checkpoints(adapter: Path) -> None:
    """Delete an adapter's checkpoints in the object store, if the home has one."""
    if store := settings.load().store:
        store.remove(_place(adapter))


def pull_checkpoints(home: Settings, adapter: Path) -> None:
    """Pull the checkpoints of an adapter that are newer than those of this machine.

    One that is damaged in the store is passed over: the training resumes from the one before.
    """
    saved = adapter / checkpoints.CHECKPOINTS
    last = max((checkpoints.step_of(path.name) for path in saved.glob("checkpoint-*")), default=-1)
    for name in home.store.names(_place(adapter)) if home.store else ():
        if home.store and checkpoints.step_of(name) > last:
            with suppress(DamagedObjectError):
                if home.store.pull(f"{_place(adapter)}/{name}", saved / name):
                    (saved / name / output_folders.NAME).unlink()  # its seal is enough


def push_checkpoint(home: Settings, place: str, checkpoint: Path) -> None:
    """Push a sealed checkpoint; ``FileNotFoundError`` if the training deletes it meanwhile."""
    seal = checkpoint / checkpoints.SEAL_FILE
    files = json.loads(seal.read_text()) | {seal.name: manifest.file_digest(seal)}
    if home.store:
        home.store.push(f"{place}/{checkpoint.name}", checkpoint, json.dumps({"files": files}))


def _place(adapter: Path) -> str:
    return f"checkpoints/{adapter.parent.name}/{adapter.name}"


class _Sharing:
    """What of a job is in the store."""

    def __init__(
        self, home: Settings, store: SharedFiles, folder: Path, adapter: Path | None
    ) -> None:
        self._home, self._store, self._folder, self._adapter = home, store, folder, adapter
        self._shown: dict[str, tuple[int, int]] = {}
        self._pushed: set[str] = set()

    def until(self, is_over: threading.Event) -> None:
        """Push what is new, again and again, and once more at the end."""
        is_last = False
        while not is_last:
            is_last = is_over.wait(EACH_SECONDS)
            # What could not be pushed is still new at the next look.
            with suppress(StoreError), self._store.reaching("showing a job"):
                self._show_files()
                self._push_checkpoints()

    def _show_files(self) -> None:
        for path in (self._folder / name for name in SHOWN):
            with suppress(FileNotFoundError):  # not written yet
                state = path.stat().st_mtime_ns, path.stat().st_size
                if self._shown.get(path.name) != state:
                    self._home.publish(path)
                    self._shown[path.name] = state

    def _push_checkpoints(self) -> None:
        """Push sealed checkpoints of a training, and delete those that it has deleted.

        At its end the training deletes all: those of the store stay until the adapter is finished.
        """
        if (adapter := self._adapter) is None:
            return
        place, sealed = _place(adapter), checkpoints.sealed_checkpoints(adapter)
        for checkpoint in sealed:
            if checkpoint.name not in self._pushed:
                with suppress(FileNotFoundError):  # the training deletes old ones
                    push_checkpoint(self._home, place, checkpoint)
                    self._pushed.add(checkpoint.name)
        if sealed:
            for name in {*self._store.names(place)} - {checkpoint.name for checkpoint in sealed}:
                self._store.remove(f"{place}/{name}")
