"""A home that is backed up while it works, and put back."""

import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from components.collect.source import Input
from components.extensions.machines import lake_schema
from components.extensions.machines.lake_warehouse import Lake
from components.extensions.machines.object_store import ObjectStore
from components.home_archive import BackupError
from components.release import installation
from components.store import file_locks, spool, warehouse
from flows import home_backup, sources
from flows.cli.main import app
from flows.settings import Settings
from tests.support import buckets, forking, lakes, logs, small_disk, warehouses

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def home(tmp_path: Path) -> Settings:
    """A home with something of each kind in it."""
    found = Settings(tmp_path / "home", 4200, 5000)
    log = logs.write(tmp_path / "log.jsonl", [logs.interaction()])
    with warehouses.connect(found.warehouse) as con:
        logs.load_input(con, Input(str(log), "fivekey"), now=NOW)
    for name in (
        "snapshots/s1/manifest.json",
        "models/base/x.safetensors",
        "logs/prefect.log",
        "serve/adapters/support.v1-0123/adapter_model.safetensors",
        "keys/response.key",
    ):
        (found.home / name).parent.mkdir(parents=True)
        (found.home / name).write_text(name)
    for folder in (found.spool, found.workloads, found.mlflow_home):
        folder.mkdir()
    (found.spool / "segment").write_bytes(b"\x00\x01")
    (tmp_path / "shop.yaml").write_text("workload: shop\n")
    (found.workloads / "shop.yaml").symlink_to(tmp_path / "shop.yaml")
    return found


def back_up(home: Settings, to: Path, *, with_models: bool = False) -> Path:
    home_backup.back_up(home, to, with_models=with_models, now=NOW, advance=lambda _: None)
    return to


def files(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".duckdb")
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def test_a_restored_home_is_the_one_that_was_backed_up(home: Settings, tmp_path: Path) -> None:
    before = files(home.home)
    archive = back_up(home, tmp_path / "b.tar.zst")
    shutil.rmtree(home.home)
    home.prefect_home.mkdir(parents=True)  # as every command makes it
    home_backup.restore(home, archive, sha256=None, advance=lambda _: None)
    gone = {name for name in before if name.startswith(("models/", "logs/", "serve/"))}
    assert files(home.home) == {k: v for k, v in before.items() if k not in gone}
    assert (home.workloads / "shop.yaml").readlink() == tmp_path / "shop.yaml"
    with warehouses.connect(home.warehouse) as con:
        assert warehouse.rows(con, "select count(*) as n from raw.interactions") == [{"n": 1}]
    assert home_backup.outside_files(home) == [tmp_path / "shop.yaml"]


def test_a_restored_home_is_on_the_disk_before_it_is_in_place(
    home: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive, synced = back_up(home, tmp_path / "backup.tar.zst"), list[bool]()
    shutil.rmtree(home.home)
    monkeypatch.setattr(os, "sync", lambda: synced.append(home.home.exists()))
    home_backup.restore(home, archive, sha256=None, advance=lambda _: None)
    assert synced == [False]


def test_what_a_link_to_another_disk_leads_to_is_in_it(home: Settings, tmp_path: Path) -> None:
    snapshots = home.snapshots.rename(tmp_path / "disk")
    home.snapshots.symlink_to(snapshots)
    archive = back_up(home, tmp_path / "b.tar.zst")
    shutil.rmtree(home.home)
    shutil.rmtree(snapshots)
    home_backup.restore(home, archive, sha256=None, advance=lambda _: None)
    assert (home.snapshots / "s1/manifest.json").exists()


def test_a_files_name_neither_ends_the_command_nor_steers_the_terminal(
    home: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has an account in MLflow names files of artifacts."""
    (home.mlflow_home / "[").mkdir()
    (home.mlflow_home / "[" / "red] \x1b]0;title\x07").write_text("an artifact")
    monkeypatch.setenv("FLYWHEEL_HOME", str(home.home))
    monkeypatch.setenv("FORCE_COLOR", "1")  # as on a terminal
    done = CliRunner().invoke(app, ["backup", str(tmp_path / "b.tar.zst")])
    assert done.exit_code == 0, done.output
    assert "\x1b]0" not in done.output


def test_models_are_in_it_when_asked_for(home: Settings, tmp_path: Path) -> None:
    archive = back_up(home, tmp_path / "b.tar.zst", with_models=True)
    shutil.rmtree(home.home)
    home_backup.restore(home, archive, sha256=None, advance=lambda _: None)
    assert (home.models / "base/x.safetensors").exists()


def test_a_database_is_whole_though_somebody_is_writing_to_it(
    home: Settings, tmp_path: Path
) -> None:
    con = sqlite3.connect(home.mlflow_home / "mlflow.db")
    con.execute("pragma journal_mode = wal")
    con.execute("create table runs (n int)")
    con.execute("insert into runs values (1)")
    con.commit()
    con.execute("insert into runs values (2)")  # not committed
    archive = back_up(home, tmp_path / "b.tar.zst")
    con.close()
    shutil.rmtree(home.home)
    home_backup.restore(home, archive, sha256=None, advance=lambda _: None)
    assert {path.name for path in home.mlflow_home.iterdir()} == {"mlflow.db"}
    with sqlite3.connect(home.mlflow_home / "mlflow.db") as restored:
        assert restored.execute("select n from runs").fetchall() == [(1,)]


KILLED = """
import os, signal, sqlite3, sys
con = sqlite3.connect(sys.argv[1], isolation_level=None)
con.execute("pragma cache_size = 1")
con.execute("create table runs (n int, text text)")
con.execute("begin")
for _ in range(100):
    con.execute("insert into runs values (1, hex(randomblob(2000)))")
con.execute("commit")
con.execute("begin")
con.execute("update runs set n = 2")
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("name", ["mlflow/mlflow.db", "metrics.sqlite"])
def test_what_a_killed_process_had_half_written_to_a_database_is_not_in_it(
    home: Settings, tmp_path: Path, name: str
) -> None:
    path = home.home / name
    assert subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False).returncode == -9
    assert path.with_name(path.name + "-journal").stat().st_size, "it had begun to write"
    archive = back_up(home, tmp_path / "b.tar.zst")
    shutil.rmtree(home.home)
    home_backup.restore(home, archive, sha256=None, advance=lambda _: None)
    with closing(sqlite3.connect(path)) as restored:
        assert restored.execute("select n, count(*) from runs group by n").fetchall() == [(1, 100)]


def test_a_segment_that_is_sealed_while_the_spool_is_copied_is_in_it_once(
    home: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copyfile, writer = shutil.copyfile, spool.Writer(home.spool)
    writer.commit([spool.line("interactions", "shop", b"{}")])

    def sealed_first(*arguments: Any, **options: Any) -> object:
        writer.seal()
        return copyfile(*arguments, **options)

    with monkeypatch.context() as during:
        during.setattr(shutil, "copyfile", sealed_first)
        archive = back_up(home, tmp_path / "b.tar.zst")
    shutil.rmtree(home.home)
    home_backup.restore(home, archive, sha256=None, advance=lambda _: None)
    (segment,) = spool.sealed(home.spool)
    assert [entry.number for entry in spool.read(segment)] == [1]
    assert not list(home.spool.glob(f"*{spool.PARTIAL}"))


KILLED_BACKUP = """
import os, signal, sys
from datetime import UTC, datetime
from pathlib import Path
from flows import home_backup
from flows.settings import Settings
home_backup.back_up(
    Settings(Path(sys.argv[1]), 4200, 5000), Path(sys.argv[2]), with_models=False,
    now=datetime.now(UTC), advance=lambda name: os.kill(os.getpid(), signal.SIGKILL),
)
"""


def test_the_copies_of_a_killed_backup_are_where_an_erasure_deletes_them(
    home: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "system").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "system"))
    to = str(tmp_path / "b.tar.zst")
    command = [sys.executable, "-c", KILLED_BACKUP, str(home.home), to]
    assert subprocess.run(command, check=False).returncode == -9
    assert not list((tmp_path / "system").iterdir())
    assert list(home.scratch.rglob("warehouse.duckdb"))
    file_locks.delete_abandoned(home.scratch)
    assert not list(home.scratch.iterdir())


def test_a_backup_whose_copies_vanish_is_none(home: Settings, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="tmp/backup-"):
        home_backup.back_up(
            home,
            tmp_path / "b.tar.zst",
            with_models=False,
            now=NOW,
            advance=lambda _: shutil.rmtree(home.scratch, ignore_errors=True),
        )
    assert not (tmp_path / "b.tar.zst").exists()


def test_an_erasure_during_a_backup_ends_it(home: Settings, tmp_path: Path) -> None:
    """The warehouse in the archive would name what the erasure had deleted by then."""

    def erase(name: str) -> None:
        if name.startswith("snapshots"):
            with warehouses.connect(home.warehouse) as con:
                con.execute("insert into raw.erasures values ('c1', 'w', '{}', ?, null)", [NOW])

    to = tmp_path / "b.tar.zst"
    with pytest.raises(BackupError, match="an erasure began or ended meanwhile"):
        home_backup.back_up(home, to, with_models=False, now=NOW, advance=erase)
    assert not to.exists()
    back_up(home, to)


def test_nothing_is_put_over_a_home_that_is_there(home: Settings, tmp_path: Path) -> None:
    archive = back_up(home, tmp_path / "b.tar.zst")
    with pytest.raises(BackupError, match="is not empty"):
        home_backup.restore(home, archive, sha256=None, advance=lambda _: None)


def test_a_backup_goes_to_the_place_that_it_is_of(home: Settings, tmp_path: Path) -> None:
    archive = back_up(home, tmp_path / "b.tar.zst")
    other = Settings(tmp_path / "other", 4200, 5000)
    with pytest.raises(BackupError, match=f"set FLYWHEEL_HOME={home.home}"):
        home_backup.restore(other, archive, sha256=None, advance=lambda _: None)
    assert not other.home.exists()


def test_a_home_that_is_a_link_is_restored_where_it_leads(home: Settings, tmp_path: Path) -> None:
    archive = back_up(home, tmp_path / "b.tar.zst")
    shutil.rmtree(home.home)
    (tmp_path / "disk").mkdir()
    home.home.symlink_to(tmp_path / "disk")
    home_backup.restore(home, archive, sha256=None, advance=lambda _: None)
    assert home.home.is_symlink()
    assert (tmp_path / "disk" / "warehouse.duckdb").exists()


RESTORE = """
import sys
from pathlib import Path
from flows import home_backup
from flows.settings import Settings
home = Settings(Path(sys.argv[1]), 4200, 5000)
home.prefect_home.mkdir()
home_backup.restore(home, Path(sys.argv[2]), sha256=None, advance=lambda _: None)
print(sorted(path.name for path in home.home.iterdir()))
"""
MOUNT = """
cd "$1" && mount -t tmpfs none . && cd "$1" && mkdir .restoring || exit 1
mkdir ../disk && ln -s ../disk snapshots || exit 1
touch credentials.json .restoring/x && shift && exec "$@"
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting wants root")
def test_a_home_that_is_a_volume_is_filled(home: Settings, tmp_path: Path) -> None:
    """A folder that is mounted can't be replaced by another one."""
    archive = back_up(home, tmp_path / "b.tar.zst")
    shutil.rmtree(home.home)
    home.home.mkdir()
    command = ["unshare", "-m", "sh", "-c", MOUNT, "sh", str(home.home)]
    python = [sys.executable, "-c", RESTORE, str(home.home), str(archive)]
    done = subprocess.run([*command, *python], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    names = ["keys", "prefect", "snapshots", "spool", "warehouse.duckdb", "workloads"]
    assert done.stdout.strip() == str(names)


def cut_off(content: bytes) -> bytes:
    return content[: len(content) // 2]


def one_byte_changed(content: bytes) -> bytes:
    return content[:400] + bytes([content[400] ^ 255]) + content[401:]


def emptied(content: bytes) -> bytes:
    return content[:0]


def replaced(content: bytes) -> bytes:
    return b"x" * len(content)


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(cut_off, id="cut-off", marks=pytest.mark.slow),
        pytest.param(one_byte_changed, id="a-byte"),
        pytest.param(emptied, id="empty", marks=pytest.mark.slow),
        pytest.param(replaced, id="no-archive"),
    ],
)
def test_a_damaged_archive_leaves_nothing(
    home: Settings, tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    archive = back_up(home, tmp_path / "b.tar.zst")
    archive.write_bytes(damage(archive.read_bytes()))
    shutil.rmtree(home.home)
    with pytest.raises(BackupError, match="restoring"):
        home_backup.restore(home, archive, sha256=None, advance=lambda _: None)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "b.tar.zst",
        "log.jsonl",
        "shop.yaml",
    ]


def test_a_backup_does_not_lie_in_what_it_is_of(home: Settings, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(home.home)
    for place in (home.home, tmp_path / "link"):
        with pytest.raises(BackupError, match="lies in it"):
            back_up(home, place / "b.tar.zst")


def test_a_backup_names_the_file_to_write(home: Settings, tmp_path: Path) -> None:
    with pytest.raises(BackupError, match=f"is a folder; .* {tmp_path}/flywheel.tar.zst"):
        back_up(home, tmp_path)


def test_a_file_that_is_there_is_not_replaced_by_a_backup(
    home: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be the way back to an older release, or no archive at all."""
    monkeypatch.setenv("FLYWHEEL_HOME", str(home.home))
    to = tmp_path / "before.tar.zst"
    to.write_text("the only way back")
    done = CliRunner().invoke(app, ["backup", str(to)])
    assert done.exit_code == 1
    assert f"backing up to {to}: it exists; name another path" in done.output
    assert to.read_text() == "the only way back"


def test_of_two_backups_to_one_place_the_second_is_refused(home: Settings, tmp_path: Path) -> None:
    to, refused = tmp_path / "b.tar.zst", list[str]()

    def start_another(_: str) -> None:
        if not refused:
            with pytest.raises(BackupError) as error:
                back_up(home, to)
            refused.append(str(error.value))

    home_backup.back_up(home, to, with_models=False, now=NOW, advance=start_another)
    assert refused == [f"backing up to {to}: another backup writes it now; name another path"]
    shutil.rmtree(home.home)
    home_backup.restore(home, to, sha256=None, advance=lambda _: None)


def test_what_came_to_a_place_during_a_backup_stays_there(home: Settings, tmp_path: Path) -> None:
    to = tmp_path / "b.tar.zst"

    def come(_: str) -> None:
        to.write_text("another's")

    with pytest.raises(BackupError, match="it exists; name another path"):
        home_backup.back_up(home, to, with_models=False, now=NOW, advance=come)
    assert to.read_text() == "another's"
    assert [*tmp_path.glob(".*")] == []


def test_a_full_disk_is_named_and_leaves_nothing(home: Settings, tmp_path: Path) -> None:
    archive = back_up(home, tmp_path / "b.tar.zst")
    with small_disk.mounted(tmp_path / "disk", "8k") as disk:
        with pytest.raises(BackupError, match=f"a disk is full.*bytes in {disk} are free"):
            back_up(home, disk / "b.tar.zst")
        assert list(disk.iterdir()) == []
        other = replace(home, home=disk / "home")
        with pytest.raises(BackupError, match=f"restoring to {other.home}: its disk has 8,192"):
            home_backup.restore(other, archive, sha256=None, advance=lambda _: None)


def test_a_backup_waits_for_whoever_changes_a_champion(home: Settings, tmp_path: Path) -> None:
    archive = tmp_path / "backup.tar.zst"
    waits = threading.Thread(target=back_up, args=(home, archive))
    with installation.lock_champion(home.warehouse, home.locks, "shop"):
        waits.start()
        waits.join(2)
        assert not archive.exists()
    waits.join()
    assert archive.exists()


def test_an_archive_is_for_the_eyes_of_its_owner_only(home: Settings, tmp_path: Path) -> None:
    secret = home.approvers / "ada.secret"
    secret.parent.mkdir(mode=0o700)
    secret.write_text("JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP\n")
    secret.chmod(0o600)
    archive = tmp_path / "backup.tar.zst"
    (tmp_path / f".{archive.name}.partial").write_text("left by a kill, for all to read")
    home_backup.back_up(home, archive, with_models=False, now=NOW, advance=lambda _: None)
    assert archive.stat().st_mode & 0o077 == 0
    shutil.rmtree(home.home)
    home_backup.restore(home, archive, sha256=None, advance=lambda _: None)
    assert secret.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("place", [pytest.param("", marks=pytest.mark.slow), "backups/"])
def test_an_archive_goes_to_a_bucket_of_its_own_and_comes_back(
    home: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.setenv("FLYWHEEL_HOME", str(home.home))
    to = f"s3://{buckets.NAME}/{place}home.tar.zst"

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(app, [*arguments])

    with buckets.serving():
        done = run("backup", to)
        assert done.exit_code == 0, done.output
        digest = done.output.split("sha256 ")[1].split()[0]
        assert "it exists; name another path" in run("backup", to).output
        assert list(home.scratch.iterdir()) == [], "nothing is left in clear"
        shared = replace(home, store=ObjectStore(f"s3://{buckets.NAME}/team"))
        with pytest.raises(BackupError, match="name a bucket of its own"):
            home_backup.back_up_to(shared, to, with_models=False, now=NOW, advance=lambda _: None)
        before = files(home.home)
        shutil.rmtree(home.home)
        assert "there is no such object" in run("restore", f"{to}x", "--unverified").output
        refused = run("restore", to, "--sha256", "0" * 64)
        assert refused.exit_code != 0
        assert not home.home.exists()
        done = run("restore", to, "--sha256", digest)
        assert done.exit_code == 0, done.output
    kept = {name for name in before if name.split("/")[0] not in home_backup.LEFT_OUT | {"models"}}
    assert {name: before[name] for name in kept} == files(home.home)
    assert not [*tmp_path.glob(".*")], "no copy of the archive is left"


CONTAINER = """
mkdir -p "$1/home" "$1/tmp" && mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" || exit 1
mount -t tmpfs none "$1/home" && mount -t tmpfs -o size=4k none "$1/tmp" || exit 1
export FLYWHEEL_HOME="$1/home" TMPDIR="$1/tmp" && shift && "$@" && ls -A "$FLYWHEEL_HOME"
"""


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting wants root")
def test_a_container_restores_from_a_bucket_onto_its_volume(home: Settings, tmp_path: Path) -> None:
    """Its other disks can't be written, and what is temporary is in memory."""
    to = f"s3://{buckets.NAME}/home.tar.zst"
    with buckets.serving():
        home_backup.back_up_to(home, to, with_models=False, now=NOW, advance=lambda _: None)
        shutil.rmtree(home.home)
        flywheel = [sys.executable, "-c", "from flows.cli.entry import main; main()"]
        restore = [*flywheel, "restore", to, "--unverified"]
        command = ["unshare", "-m", "sh", "-c", CONTAINER, "sh", str(tmp_path), *restore]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    names = ["keys", "snapshots", "spool", "warehouse.duckdb", "workloads"]
    assert done.stdout.splitlines()[-len(names) :] == names, "no copy of the archive is left"


def test_a_home_that_is_not_there_is_not_backed_up_to_a_bucket(tmp_path: Path) -> None:
    missing = Settings(tmp_path / "missing", 4200, 5000)
    with buckets.serving(), pytest.raises(BackupError, match="there is no such folder"):
        home_backup.back_up_to(
            missing,
            f"s3://{buckets.NAME}/home.tar.zst",
            with_models=False,
            now=NOW,
            advance=lambda _: None,
        )
    assert not missing.home.exists()


def contents(place: Lake) -> dict[str, Any]:
    """The rows of each table."""
    with warehouse.reading(place) as con:
        return {
            table.full_name: con.execute(f"from {table.full_name} order by all").fetchall()
            for table in lake_schema.schema().tables
        }


def load_files(place: Lake, paths: list[Path]) -> None:
    list(sources.load_inputs(place, [Input(str(path)) for path in paths], now=NOW))


@pytest.mark.lake
def test_a_lake_is_backed_up_while_others_load_and_restored_into_a_new_one(tmp_path: Path) -> None:
    place = lakes.new(tmp_path / "lake")
    home = replace(Settings(tmp_path / "home", 4200, 5000), shared_warehouse=place)
    (home.home / "snapshots").mkdir(parents=True)
    (home.home / "snapshots/any").write_text("any")
    paths = [
        logs.write(tmp_path / f"{n}.jsonl", [logs.interaction(f"{n} {m}?") for m in range(9)])
        for n in range(12)
    ]
    load_files(place, paths[:2])
    loader = forking.process(load_files, place, paths)
    loader.start()
    archive = back_up(home, tmp_path / "b.tar.zst")
    loader.join()
    assert loader.exitcode == 0
    shutil.rmtree(home.home)
    with pytest.raises(BackupError, match="it has tables already; name a database without any"):
        home_backup.restore(home, archive, sha256=None, advance=lambda _: None)
    assert not home.home.exists()

    new = Lake(lakes.database("restored"), str(home.home / "lake"))
    restored = replace(home, shared_warehouse=new)
    home_backup.restore(restored, archive, sha256=None, advance=lambda _: None)
    assert (home.home / "snapshots/any").exists()
    assert not [*home.home.glob("warehouse.duckdb*")]
    kept = contents(new)
    loaded = {row[1] for row in kept["raw.files"]}
    assert 2 <= len(loaded) <= len(paths)
    assert len(kept["raw.interactions"]) == 9 * len(loaded)
    load_files(new, paths)
    after, expected = contents(new), contents(place)
    assert after["raw.interactions"] == expected["raw.interactions"]
    assert {*after} == {*expected}
