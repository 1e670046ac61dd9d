"""An object store (S3) in which machines that share no folder keep their finished outputs.

``<url>/<place>/<sha256>`` are an output's files, named by their content, in any order;
``<url>/<place>/manifest.json`` is written last, and only if there is none. So a push that was
killed is invisible, and of two machines that finish one output the first one's is everybody's.
A home's folders are a cache of it: what is asked for and not there is pulled.
"""

import hashlib
import json
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePosixPath
from typing import Any

from components.store.output_folders import (
    NAME,
    PARTIAL,
    partial_folder,
    replaced_folder,
    sole_puller,
    sync_file,
)
from components.store.shared_files import DamagedObjectError, StoreError

OLDEST = (2025, 3)
"""The first version of s3fs to write on a condition; older ones ignore ``mode="create"``."""

ATTEMPTS = 3  # of a conditional write: a store may refuse both of two at once (409)

TIMEOUTS = {"connect_timeout": 5, "read_timeout": 15}  # seconds, of each attempt
REQUEST_ATTEMPTS = 3  # of botocore, unless AWS's variable has another number
CALL_ATTEMPTS = 2  # of s3fs, each with botocore's: what breaks in the middle of an object
"""A server that accepts and never answers ends a command after all of these, 90 seconds."""


@dataclass(frozen=True, slots=True)
class ObjectStore:
    """A bucket and a prefix in it, ``s3://bucket/prefix``.

    Credentials, region and endpoint are those of AWS's variables and files. What can't be reached
    or is refused raises one of ``network_errors``.
    """

    url: str

    @contextmanager
    def reaching(self, doing: str) -> Generator[None]:
        """Raise ``StoreError``, which begins with ``doing``, where the store can't be reached."""
        try:
            yield
        except network_errors() as error:
            raise StoreError(f"{doing}: {error}") from error

    def push(self, place: str, folder: Path, record: str) -> str:
        """Push the files that a manifest names, then the manifest.

        Return the manifest that is there now: another machine's if that was first.
        """
        self.complete(place, folder, record)
        winner = self.create(f"{place}/{NAME}", record)
        if winner == record:
            self.complete(place, folder, record)
        return winner

    def complete(self, place: str, folder: Path, record: str) -> int:
        """Push those of a manifest's files that the store does not have; return how many."""
        system, at, sizes = self._system(), self._path(place), self._sizes(place)
        lacking = {
            digest: folder / name
            for name, digest in files_of(place, record).items()
            if sizes.get(f"{at}/{digest}") != (folder / name).stat().st_size
        }
        for digest, path in lacking.items():
            system.put_file(str(path), f"{at}/{digest}")
        return len(lacking)

    def create(self, place: str, text: str) -> str:
        """Write a text as a file unless there is one; return the text that is there now."""
        refused: OSError | None = None
        for _ in range(ATTEMPTS):
            try:
                self._system().pipe_file(self._path(place), text.encode(), mode="create")
            except OSError as error:  # stores report in several ways that there is one
                if (winner := self.read(place)) is not None:
                    return winner
                refused = error
            else:
                return text
        raise StoreError(f"finishing {self.url}/{place}: {refused}") from refused

    def pull(self, place: str, folder: Path) -> bool:
        """Replace an unfinished or missing folder by the finished output at a place.

        Return ``False`` if there is none. Each file is compared with the manifest before the
        folder appears.

        Raises:
            DamagedObjectError: A file differs; the folder is left as it was.
        """
        record = self.read(f"{place}/{NAME}")
        if record is None:
            return False
        files = files_of(place, record)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with sole_puller(folder.parent):
            if (folder / NAME).exists() and (folder / NAME).read_bytes() == record.encode():
                return True  # another process of this machine pulled it meanwhile
            partial = partial_folder(folder)
            shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed
            try:
                self._download(place, files, partial)
                _replace(folder, partial)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
            # Last, as in any output: a kill before it leaves a folder that counts as unfinished.
            manifest = folder / f"{NAME}{PARTIAL}"
            manifest.write_text(record)
            sync_file(manifest)
            manifest.replace(folder / NAME)
        return True

    def put(self, place: str, path: Path) -> None:
        """Write a file that changes, such as a job's progress; the last one to write it wins."""
        self._system().put_file(str(path), self._path(place))

    def read(self, place: str) -> str | None:
        """Return a file's text; ``None`` if there is none.

        Raises:
            DamagedObjectError: It is not text.
        """
        try:
            return self._system().cat_file(self._path(place)).decode()
        except FileNotFoundError as error:
            self._require_bucket(error)
            return None
        except UnicodeDecodeError as error:
            raise DamagedObjectError(
                f"reading {self.url}/{place}: it is not text: {error}"
            ) from error

    def get(self, place: str, path: Path) -> bool:
        """Copy a file to a path; return ``False`` if there is none."""
        try:
            self._system().get_file(self._path(place), str(path))
        except FileNotFoundError as error:
            self._require_bucket(error)
            return False
        return True

    def write(self, place: str, text: str) -> None:
        """Write a text as a file."""
        self._system().pipe_file(self._path(place), text.encode())

    def sizes(self, place: str) -> dict[str, int]:
        """Return the bytes of each file right below a place, by name."""
        try:
            entries = self._system().ls(self._path(place), detail=True)
        except FileNotFoundError as error:
            self._require_bucket(error)
            return {}
        files = [entry for entry in entries if entry["type"] == "file"]
        sizes = {entry["name"].rpartition("/")[2]: entry["size"] for entry in files}
        return {name: size for name, size in sizes.items() if _is_plain(name)}

    def written(self, place: str) -> tuple[dict[str, float], float]:
        """Return when each file right below a place was written, by name, and what time it is now.

        In Unix seconds by the store's clock alone: those of the machines that write and read may
        be wrong.
        """
        try:
            entries = self._system().ls(self._path(place), detail=True)
        except FileNotFoundError:
            entries = []
        now = self._now(place)
        files = [entry for entry in entries if entry["type"] == "file"]
        times = {
            entry["name"].rpartition("/")[2]: entry["LastModified"].timestamp() for entry in files
        }
        return times, now

    def seconds_ahead(self, place: str) -> float:
        """Return how far the store's clock is ahead of this machine's, whatever a key may do there.

        It counts whole seconds, so half a second is missing on average.
        """
        try:
            return self._now(place) - time.time()
        except PermissionError as error:
            return _time_of(getattr(error.__cause__, "response", {})) - time.time()

    def _now(self, place: str) -> float:
        bucket, _, prefix = self._path(place).partition("/")
        answer = self._system().call_s3(
            "list_objects_v2", Bucket=bucket, Prefix=f"{prefix}/", MaxKeys=1
        )
        return _time_of(answer)

    def remove_file(self, place: str) -> None:
        """Delete a file; none there is none to delete."""
        with suppress(FileNotFoundError):
            self._system().rm_file(self._path(place))

    def copy_files(self, place: str, folder: Path) -> None:
        """Copy all files below a place into a folder."""
        system, at = self._system(), self._path(place)
        for name in self.files(place):
            copy = folder / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            system.get_file(f"{at}/{name}", str(copy))

    def names(self, place: str) -> list[str]:
        """List the names below a place, sorted; those of unfinished pushes are among them.

        Keys that would lead out of a folder, which any writer of the bucket can make, are left out.
        """
        try:
            paths: list[str] = self._system().ls(self._path(place), detail=False)
        except FileNotFoundError as error:
            self._require_bucket(error)
            return []
        names = (path.rpartition("/")[2] for path in paths)
        return sorted(name for name in names if _is_plain(name) and not name.startswith("."))

    def remove(self, place: str) -> None:
        """Delete all below a place: the manifest first, so that half an output never counts."""
        for path in sorted(self._sizes(place), key=lambda path: not path.endswith(f"/{NAME}")):
            self._system().rm_file(path)

    def forget_versions(self, below: str = "") -> None:
        """Delete what a versioned bucket keeps of deleted and overwritten files.

        ``OSError`` if that is not allowed, or the store knows no versions.
        """
        for each in self._versions(below):
            if not each["IsLatest"]:
                self._remove_version(each)
        kept = {each["Key"] for each in self._versions(below)}
        for marker in self._versions(below, "DeleteMarkers"):
            if marker["Key"] not in kept:  # else what it hides would be back
                self._remove_version(marker)

    def old_versions(self, below: str) -> list[tuple[str, str]]:
        """List the deleted and overwritten files that a versioned bucket keeps.

        Return their place and version. ``OSError``: it can't be known.
        """
        prefix = self._path("").partition("/")[2]
        return [
            (each["Key"].removeprefix(prefix), each["VersionId"])
            for each in self._versions(below)
            if not each["IsLatest"]
        ]

    def get_version(self, place: str, version_id: str, path: Path) -> None:
        """Copy a version of a file to a path."""
        self._system().get_file(self._path(place), str(path), version_id=version_id)

    def forget_uploads(self, below: str) -> None:
        """Delete what killed processes have sent of large files, which nobody lists.

        An upload that is under way fails. ``OSError`` if that is not allowed.
        """
        bucket, _, prefix = self._path(below).partition("/")
        begin: dict[str, str] = {}
        while True:
            page = self._system().call_s3(
                "list_multipart_uploads", Bucket=bucket, Prefix=prefix, **begin
            )
            for upload in page.get("Uploads", ()):
                key = {"Bucket": bucket, "Key": upload["Key"], "UploadId": upload["UploadId"]}
                self._system().call_s3("abort_multipart_upload", **key)
            if not page.get("IsTruncated"):
                return
            begin = {
                "KeyMarker": page["NextKeyMarker"],
                "UploadIdMarker": page["NextUploadIdMarker"],
            }

    def files(self, place: str) -> list[str]:
        """List all files below a place, relative to it; as ``names`` does, only plain ones."""
        at = self._path(place)
        names = (path.removeprefix(f"{at}/") for path in self._sizes(place))
        return sorted(name for name in names if all(map(_is_plain, name.split("/"))))

    def versions(self, place: str) -> int:
        """Count the files below a place in all their versions; ``OSError``: it can't be known."""
        return len(self._versions(f"{place}/"))

    def tidy(self, place: str) -> None:
        """Delete the files of an output's place that its manifest does not name.

        A killed push left them, or a machine that finished second. All of them, if it is not
        finished: a push that is under way sends again what is missing.
        """
        record = self.read(f"{place}/{NAME}")
        if record is None:
            self.remove(place)
            return
        kept = {*files_of(place, record).values(), NAME}
        for name in self.names(place):
            if name not in kept:
                self.remove(f"{place}/{name}")

    def _require_bucket(self, error: FileNotFoundError) -> None:
        """Raise ``OSError`` where not a file is missing, but the bucket."""
        answer: dict[str, Any] = getattr(error.__cause__, "response", {})
        if answer.get("Error", {}).get("Code") == "NoSuchBucket":
            bucket = self._path("").partition("/")[0]
            raise OSError(
                f"there is no bucket {bucket} at {self._system().s3.meta.endpoint_url}; create it, "
                f"or name another, as in s3://BUCKET/PREFIX, where {self.url} is set"
            ) from error

    def _sizes(self, place: str) -> dict[str, int]:
        """Return the bytes of each file below a place, by its path in the bucket."""
        at = self._path(place)
        entries: list[dict[str, Any]] = [*self._system().find(at, detail=True).values()]
        # For a folder of which only old versions are left, find returns the folder itself.
        files = [each for each in entries if each["name"].startswith(f"{at}/")]
        return {each["name"]: each["size"] for each in files}

    def _remove_version(self, entry: Mapping[str, Any]) -> None:
        bucket = self._path("").partition("/")[0]
        key = {"Bucket": bucket, "Key": entry["Key"], "VersionId": entry["VersionId"]}
        self._system().call_s3("delete_object", **key)

    def _versions(self, place: str, kind: str = "Versions") -> list[Mapping[str, Any]]:
        bucket, _, prefix = self._path(place).partition("/")
        versions: list[Mapping[str, Any]] = []
        begin: dict[str, str] = {}
        while True:
            page = self._system().call_s3(
                "list_object_versions", Bucket=bucket, Prefix=prefix, **begin
            )
            versions += page.get(kind, ())
            if not page.get("IsTruncated"):
                return versions
            begin = {
                "KeyMarker": page["NextKeyMarker"],
                "VersionIdMarker": page["NextVersionIdMarker"],
            }

    def check(self) -> None:
        """Write an object twice on the condition that there is none, then delete it.

        Raises:
            StoreError: The store can't be reached or written, or ignores the condition; or s3fs is
                missing or too old.
        """
        system, at = self._system(), self._path(f".check-{uuid.uuid4().hex}")
        try:
            system.pipe_file(at, b"first", mode="create")
            with suppress(OSError):  # as it should be
                system.pipe_file(at, b"second", mode="create")
            is_kept = system.cat_file(at) == b"first"
            system.rm_file(at)
        except network_errors() as error:
            raise StoreError(
                f"writing to the object store {self.url}: {error}; expected a bucket that the "
                "AWS_* variables let in, at AWS_ENDPOINT_URL if it is not Amazon's"
            ) from error
        if not is_kept:
            raise StoreError(
                f"writing to the object store {self.url}: it overwrote an object in spite of "
                "If-None-Match, so two machines could mix the files of one output; use a store "
                "that has conditional writes"
            )

    def refused(self, place: str) -> list[str]:
        """Return what the store lets this machine not do below a place: list, read, write, delete.

        Nothing is written there: an upload is begun and given up, and what is deleted is missing.
        """
        bucket, _, key = self._path(f"{place}/.check-{uuid.uuid4().hex}").partition("/")
        folder = key.rpartition("/")[0]
        call = partial(self._system().call_s3, Bucket=bucket)

        def write() -> None:
            upload = call("create_multipart_upload", Key=key)
            with suppress(PermissionError):  # a right of its own, like deletion
                call("abort_multipart_upload", Key=key, UploadId=upload["UploadId"])

        def delete() -> None:
            answer = call("delete_object", Key=key)
            if answer.get("DeleteMarker"):
                with suppress(OSError):
                    call("delete_object", Key=key, VersionId=answer["VersionId"])

        attempts: dict[str, Callable[[], object]] = {
            "list": lambda: call("list_objects_v2", Prefix=f"{folder}/", MaxKeys=1),
            "read": lambda: call("head_object", Key=key),
            "write": write,
            "delete": delete,
        }
        refused: list[str] = []
        for name, attempt in attempts.items():
            try:
                attempt()
            except FileNotFoundError:
                pass  # as it should be for what is not there
            except PermissionError:
                refused.append(name)
        return refused

    def _download(self, place: str, files: Mapping[str, str], folder: Path) -> None:
        system, at = self._system(), self._path(place)
        folder.mkdir()
        for name, digest in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                system.get_file(f"{at}/{digest}", str(path))
            except FileNotFoundError:
                path.touch()
            with path.open("rb") as file:
                actual = hashlib.file_digest(file, "sha256").hexdigest()
            if actual != digest:
                raise DamagedObjectError(
                    f"pulling {name} from {self.url}/{place}/{digest}: its {path.stat().st_size} "
                    f"bytes have the digest {actual}, so it is damaged or gone, and nothing was "
                    "kept; delete this output in the bucket, and start what made it again"
                )
            sync_file(path)

    def _path(self, place: str) -> str:
        if not {".", ".."}.isdisjoint(place.split("/")):
            raise StoreError(f"naming {place!r} in {self.url}: it leads out of its folder")
        return f"{self.url.removeprefix('s3://')}/{place}"

    def _system(self) -> Any:  # noqa: ANN401 - s3fs is untyped
        require_s3fs()
        from s3fs import S3FileSystem  # noqa: PLC0415 - of the extra `store`

        config: dict[str, Any] = {**TIMEOUTS}
        if "AWS_MAX_ATTEMPTS" not in os.environ:
            config["retries"] = {"total_max_attempts": REQUEST_ATTEMPTS}
        system = S3FileSystem(use_listings_cache=False, config_kwargs=config)
        system.retries = CALL_ATTEMPTS
        return system


def _time_of(answer: Mapping[str, Any]) -> float:
    return parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"]).timestamp()


def network_errors() -> tuple[type[Exception], ...]:
    """Return what is raised where a store can't be reached, or refuses what is asked of it."""
    from aiohttp import ClientError  # noqa: PLC0415 - of the extra `store`
    from botocore.exceptions import BotoCoreError  # noqa: PLC0415 - as above

    return OSError, BotoCoreError, ClientError  # the last one of answers that are cut


def require_s3fs() -> None:
    """Raise ``StoreError`` unless a version of s3fs that writes on a condition is installed."""
    expected = f"s3fs {'.'.join(map(str, OLDEST))} or newer"
    remedy = "pip install 'lora-flywheel[store]' installs it"
    try:
        installed = version("s3fs")
    except PackageNotFoundError as error:
        raise StoreError(f"using an object store: expected {expected}; {remedy}") from error
    if tuple(int(number) for number in re.findall(r"\d+", installed)[:2]) < OLDEST:
        raise StoreError(
            f"using an object store: s3fs is {installed}, which overwrites what another machine "
            f"has finished; expected {expected}; {remedy}"
        )


def _is_plain(name: str) -> bool:
    return name not in ("", ".", "..") and "\0" not in name


def files_of(place: str, record: str) -> dict[str, str]:
    """Return the digests of a manifest's files by their paths in the folder.

    Raises:
        DamagedObjectError: It is no manifest, or names a file outside of its folder.
    """
    try:
        files = dict[Any, Any](json.loads(record)["files"])
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedObjectError(f"the manifest of {place} can't be read: {error!r}") from error
    for name, digest in files.items():
        parts = PurePosixPath(name).parts
        is_inside = bool(parts) and "\0" not in name and not {"/", "..", NAME} & {*parts}
        if not is_inside or not re.fullmatch("[0-9a-f]{64}", str(digest)):
            raise DamagedObjectError(
                f"reading the manifest of {place}: it names the file {name!r} with the digest "
                f"{digest!r}, expected a path inside the folder and a SHA-256"
            )
    return files


def _replace(folder: Path, partial: Path) -> None:
    if folder.exists():  # what this machine began, or finished after another one
        aside = replaced_folder(folder)
        shutil.rmtree(aside, ignore_errors=True)
        folder.rename(aside)
        partial.rename(folder)
        shutil.rmtree(aside)
    else:
        partial.rename(folder)


def located(address: str) -> tuple[ObjectStore, str]:
    """Return the bucket of an ``s3://`` address as a store, and the path in it."""
    bucket, _, place = address.removeprefix("s3://").partition("/")
    return ObjectStore(f"s3://{bucket}"), place
