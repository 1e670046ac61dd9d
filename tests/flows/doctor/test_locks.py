"""``flywheel doctor`` tries whether locks hold in the home, and refuses where they don't."""

import fcntl
import subprocess
import sys
from pathlib import Path

import pytest

from flows.doctor import lock_probe
from flows.doctor.lock_probe import Mount

MOUNTS = """\
22 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
30 22 0:40 / /srv rw,relatime shared:5 - nfs4 store:/srv rw,vers=4.2,local_lock=none,addr=10.0.0.2
31 30 0:41 / /srv/old rw,relatime - nfs store:/old rw,vers=3,nolock,proto=tcp,addr=10.0.0.2
32 22 0:42 / /mnt/my\\040disk rw - fuse.sshfs me@desk:/home rw,user_id=0
"""


def test_locks_hold_on_this_disk(tmp_path: Path) -> None:
    assert lock_probe.probe_locks(tmp_path) == []
    assert not list(tmp_path.iterdir()), "nothing of the trial is left"


def test_a_folder_that_takes_no_files_is_said_so(tmp_path: Path) -> None:
    (message,) = lock_probe.probe_locks(tmp_path / "gone")
    assert "locks can't be tried ([Errno 2] No such file or directory" in message


def test_the_rival_says_what_it_gets_while_another_process_holds_a_lock(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "flows.doctor.lock_probe", str(tmp_path)]
    with (tmp_path / "flock").open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "flock Resource temporarily unavailable\nfcntl taken\n"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        pytest.param("/home/me", None, id="local-disk"),
        pytest.param("/srv/flywheel", None, id="nfs-with-locks"),
        pytest.param("/srv/old/flywheel", "on nfs mounted with nolock", id="nfs-without"),
        pytest.param("/srv/older", None, id="begins-alike"),
        pytest.param("/mnt/my disk/home", "on fuse.sshfs", id="sshfs"),
    ],
)
def test_a_file_system_whose_locks_stay_on_one_machine_is_refused(
    path: str, message: str | None
) -> None:
    mount = lock_probe.mount_of(Path(path), MOUNTS)
    assert lock_probe.local_only(mount) == message
    (finding,) = lock_probe.check_locks(Path(path), [], mount)
    assert finding.level == ("wrong" if message else "fine")
    assert ("nolock" in finding.fix) == bool(message)


def test_locks_that_did_not_hold_are_named_with_what_to_do() -> None:
    trouble = "two processes had the same flock lock at once"
    (finding,) = lock_probe.check_locks(Path("/h"), [trouble], Mount("/", "fuse.nolocks"))
    assert (finding.level, finding.state) == ("wrong", f"{trouble} in /h")
    assert "FLYWHEEL_HOME" in finding.fix
