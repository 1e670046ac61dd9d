"""Who else on this machine may enter a home: nobody, or one group.

The mode of the home's folder is the record: 0700, or 2770 for a home that a group shares. Every
process of ours takes its umask from it, so whatever is written is as private as the home.
"""

import grp
import os
import shutil
import stat
from pathlib import Path

from flows.settings import GROUP, Settings, SettingsError

PRIVATE, SHARED = 0o700, 0o2770
"""The modes of a home; the second one hands its group on to all that is made in it."""


def set_umask(home: Path) -> None:
    """Keep what this process and its children write from others; the group of a shared home may."""
    os.umask(0o007 if is_shared(home) else 0o077)


def is_shared(home: Path) -> bool:
    """Return whether a group shares the home."""
    return home.is_dir() and stat.S_IMODE(home.stat().st_mode) & SHARED == SHARED


def secure(settings: Settings) -> None:
    """Make the home if it is missing, and close it to others than its owner, or its group.

    A home that a group shares stays so without the setting; ``chmod 700`` ends it.

    Raises:
        SettingsError: There is no such group, or this user may not give the home to it.
    """
    home = settings.home
    home.mkdir(parents=True, exist_ok=True)
    if settings.group is not None:
        _share(home, settings.group)
    elif not is_shared(home):
        _set_mode(home, PRIVATE)
    else:
        _set_mode(home, SHARED)
    set_umask(home)


def _share(home: Path, group: str) -> None:
    try:
        gid = grp.getgrnam(group).gr_gid
        if home.stat().st_gid != gid:
            shutil.chown(home, group=gid)
        _set_mode(home, SHARED)
    except (KeyError, PermissionError) as error:
        raise SettingsError(
            f"{GROUP} is {group!r}, and {home} can't be given to that group: it must exist, and "
            f"whoever owns the home must be a member ({error})"
        ) from error


def _set_mode(home: Path, mode: int) -> None:
    if stat.S_IMODE(home.stat().st_mode) != mode:
        home.chmod(mode)
