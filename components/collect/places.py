"""Where files lie: folders, globs, and what fsspec can reach (``s3://``, ``gs://`` ...)."""

import glob
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

REMOTE = "://"


class UnreachableError(OSError):
    """A remote place can't be listed or read."""


def matching(pattern: str) -> list[str]:
    """List the files of a path, a folder (with those below it) or a glob, sorted.

    Raises:
        UnreachableError: A remote place can't be reached.
        ImportError: The package that reaches it (``s3fs`` for ``s3://``) is not installed.
    """
    if REMOTE in pattern:
        return _remote(pattern)
    if Path(pattern).is_dir():
        return sorted(str(path) for path in Path(pattern).rglob("*") if _is_readable(path))
    names = glob.glob(pattern, recursive=True)  # noqa: PTH207 - the pattern may be absolute
    return sorted(name for name in names if Path(name).is_file())


@contextmanager
def local(place: str) -> Generator[Path]:
    """Give a file as one of this machine; a remote one is copied for as long as the block runs."""
    if REMOTE not in place:
        yield Path(place)
        return
    with tempfile.TemporaryDirectory(prefix="flywheel-") as folder:
        copy = Path(folder) / place.rpartition("/")[2]
        with _reaching(place):
            from fsspec.core import url_to_fs  # noqa: PLC0415 - few have remote files

            system, path = url_to_fs(place)
            system.get_file(path, str(copy))
        yield copy


@contextmanager
def _reaching(place: str) -> Generator[None]:
    """Say which place it was; each file system raises what its own library does."""
    try:
        yield
    except ImportError:  # says what to install
        raise
    except Exception as error:  # botocore's are of no common kind, but for this one
        said = str(error) or type(error).__name__
        raise UnreachableError(f"reaching {place}: {said}") from error


def _is_readable(path: Path) -> bool:
    """Leave out folders, and what is hidden: editors and uploads name unfinished files so."""
    return path.is_file() and not path.name.startswith(".")


def _remote(pattern: str) -> list[str]:
    with _reaching(pattern):
        from fsspec.core import url_to_fs  # noqa: PLC0415 - as above

        system, path = url_to_fs(pattern)
        system.invalidate_cache()  # listings are kept for as long as the process lives
        if system.isdir(path):
            found = system.find(path)
        else:
            found = system.glob(path) if glob.has_magic(path) else [path]
    return sorted(system.unstrip_protocol(name) for name in found)
