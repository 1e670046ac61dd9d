r"""One SHA-256 over all bytes of a folder: what an approval of an adapter is about.

It is the digest of what ``sha256sum`` prints of its files, sorted by name; coreutils compute it::

    find . -type f -printf '%P\0' | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum
"""

import hashlib
from collections.abc import Set as AbstractSet
from pathlib import Path

from components import manifest


def folder_digest(folder: Path, leaving_out: AbstractSet[str] = frozenset()) -> str:
    """Return the digest (64 hex digits) over the names and contents of all files of a folder.

    Args:
        folder: The folder.
        leaving_out: Paths in it of files that are not digested.

    Raises:
        ValueError: It holds no file, a link, something that is no plain file, or a name with a line
            break or a backslash, which two different folders could share a digest by.
    """
    files: dict[bytes, str] = {}
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if name in leaving_out or (path.is_dir() and not path.is_symlink()):
            continue
        if path.is_symlink() or not path.is_file() or set(name) & {"\n", "\r", "\\"}:
            raise ValueError(f"digesting {folder}: {name!r} is not a plainly named, plain file")
        files[name.encode()] = manifest.file_digest(path)
    if not files:
        raise ValueError(f"digesting {folder}: it holds no file, expected an adapter's")
    whole = hashlib.sha256()
    for name in sorted(files):
        whole.update(files[name].encode() + b"  " + name + b"\n")
    return whole.hexdigest()
