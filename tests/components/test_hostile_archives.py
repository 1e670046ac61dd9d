"""Hostile archives are refused, and leave nothing behind."""

import hashlib
import io
import json
import stat
import tarfile
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import pytest
import zstandard

from components.home_archive import BackupError
from flows import home_backup
from flows.settings import Settings
from tests.support import terminal

NOW = datetime(2026, 1, 1, tzinfo=UTC)
CONTENT = b"content"


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    info.size = len(CONTENT) if kind == tarfile.REGTYPE else 0
    return info


def write(
    path: Path, home: Path, members: Iterable[tarfile.TarInfo], *, listed: bool = True
) -> Path:
    """Write an archive as `flywheel backup` does, of whatever members."""
    digest = hashlib.sha256(CONTENT).hexdigest()
    files: dict[str, str] = {}
    with (
        path.open("wb") as file,
        zstandard.ZstdCompressor().stream_writer(file) as packed,
        tarfile.open(fileobj=packed, mode="w|") as tar,
    ):
        for info in members:
            tar.addfile(info, io.BytesIO(CONTENT) if info.isreg() else None)
            if info.isreg() and listed:
                files[info.name] = digest
        record = {"home": str(home), "version": "1", "made_at": "", "files": files}
        text = json.dumps(record).encode()
        last = tarfile.TarInfo("backup.json")
        last.size = len(text)
        tar.addfile(last, io.BytesIO(text))
    return path


@pytest.fixture
def home(tmp_path: Path) -> Settings:
    return Settings(tmp_path / "inner" / "home", 4200, 5000)


def restore(home: Settings, archive: Path, sha256: str | None = None, most: int = 1 << 30) -> None:
    home_backup.restore(home, archive, sha256=sha256, advance=lambda _: None, most_bytes=most)


def everything(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        pytest.param([member("../evil")], "is not a path inside the home", id="above"),
        pytest.param(
            [member("a/../../evil")], "is not a path inside the home", id="above-by-a-way"
        ),
        pytest.param([member("/tmp/evil")], "is not a path inside the home", id="absolute"),
        pytest.param([member("a"), member("a")], "a is in it twice", id="twice"),
        pytest.param(
            [member("a"), member("hard", tarfile.LNKTYPE, "/etc/passwd")],
            "hard is neither a file nor a symbolic link",
            id="hard-link",
        ),
        pytest.param([member("dev", tarfile.CHRTYPE)], "dev is neither", id="device"),
        pytest.param([member("pipe", tarfile.FIFOTYPE)], "pipe is neither", id="fifo"),
        pytest.param(
            [member("spool", tarfile.SYMTYPE, "/etc")], "leads out of the home", id="link-out"
        ),
        pytest.param(
            [member("a/b", tarfile.SYMTYPE, "../../etc")], "leads out of the home", id="link-up"
        ),
        pytest.param(
            [
                member("workloads/x", tarfile.SYMTYPE, "/tmp"),
                member("workloads/x/evil", tarfile.SYMTYPE, "/etc/passwd"),
            ],
            "lies behind another link",
            id="link-behind-a-link",
        ),
        pytest.param(
            [
                member("d", tarfile.SYMTYPE, "."),
                member("adapters/w/k", tarfile.SYMTYPE, "../../d/../precious"),
            ],
            "leads out of the home",
            id="link-out-through-a-link",
        ),
    ],
)
def test_members_that_no_backup_has_are_refused_and_nothing_is_left(
    home: Settings, tmp_path: Path, members: list[tarfile.TarInfo], reason: str
):
    archive = write(tmp_path / "b.tar.zst", home.home, members)
    with pytest.raises(BackupError, match=reason):
        restore(home, archive)
    assert everything(tmp_path) == {"b.tar.zst", "inner"}


def test_a_file_that_the_backup_did_not_list_is_refused(home: Settings, tmp_path: Path):
    archive = write(tmp_path / "b.tar.zst", home.home, [member("a")], listed=False)
    with pytest.raises(BackupError, match=r"a is not in its backup\.json"):
        restore(home, archive)
    assert everything(tmp_path) == {"b.tar.zst", "inner"}


def test_more_than_the_limit_is_not_unpacked(home: Settings, tmp_path: Path):
    archive = tmp_path / "bomb.tar.zst"
    size = 64 << 20
    with (
        archive.open("wb") as file,
        zstandard.ZstdCompressor().stream_writer(file) as packed,
        tarfile.open(fileobj=packed, mode="w|") as tar,
    ):
        info = tarfile.TarInfo("zeros")
        info.size = size
        tar.addfile(info, io.BytesIO(bytes(size)))
    assert archive.stat().st_size < 1 << 16
    with pytest.raises(BackupError, match="more than 1,048,576 bytes come out of it"):
        restore(home, archive, most=1 << 20)
    assert everything(tmp_path) == {"bomb.tar.zst", "inner"}


def test_an_archive_with_another_digest_is_not_opened(home: Settings, tmp_path: Path):
    archive = write(tmp_path / "b.tar.zst", home.home, [member("decisions")])
    sha256 = hashlib.sha256(archive.read_bytes()).hexdigest()
    forged = write(tmp_path / "b.tar.zst", home.home, [member("decisions"), member("more")])
    for _ in range(2):
        with pytest.raises(BackupError, match="it is not the file that `flywheel backup` wrote"):
            restore(home, forged, sha256)
        assert not home.home.exists()
        forged.write_text("What is not opened may be no archive at all.")
    restore(home, write(tmp_path / "b.tar.zst", home.home, [member("decisions")]), sha256)
    assert everything(home.home) == {"decisions"}


def test_links_of_a_verified_archive_may_lead_outside(home: Settings, tmp_path: Path):
    links = [member("snapshots", tarfile.SYMTYPE, "/large/disk")]
    archive = write(tmp_path / "b.tar.zst", home.home, links)
    restore(home, archive, hashlib.sha256(archive.read_bytes()).hexdigest().upper())
    assert (home.home / "snapshots").readlink() == Path("/large/disk")


def test_the_command_needs_the_digest_or_an_explicit_flag(tmp_path: Path):
    shell = terminal.in_home(tmp_path / "home", is_forked=True)
    archive = write(tmp_path / "b.tar.zst", shell.settings.home, [member("decisions")])
    refused = shell.run("restore", archive)
    assert refused.returncode == 2
    assert "expected either --sha256" in " ".join(refused.stderr.split())
    assert not shell.settings.home.exists()  # with new logins it would look like a home
    taken = shell.run("restore", archive, "--unverified")
    assert taken.returncode == 0, taken.stderr
    assert stat.S_IMODE(shell.settings.home.stat().st_mode) == 0o700
