"""The spool when its writer dies, fails, or shares it with others."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from components.store import spool
from components.store.spool import Damaged, Entry


def line(text: str, client_id: str = "app") -> bytes:
    return spool.line("interactions", client_id, json.dumps(text).encode())


def bodies(folder: Path) -> list[str]:
    entries = [entry for path in spool.sealed(folder) for entry in spool.read(path)]
    return [json.loads(entry.body) for entry in entries if isinstance(entry, Entry)]


def killed_writer(folder: Path, *lines: bytes) -> Path:
    """Let another process commit lines and die without sealing; return its partial file."""
    code = (
        "import os, sys; from pathlib import Path; from components.store import spool\n"
        "writer = spool.Writer(Path(sys.argv[1]))\n"
        "writer.commit([line.encode() for line in sys.argv[2:]])\n"
        "os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", code, folder, *(one.decode() for one in lines)])
    (partial,) = folder.glob("*.partial")
    return partial


@pytest.mark.parametrize("client_id", ["app", 'a"b\\c}', "müller", "line\nbreak"])
def test_an_entry_round_trips(tmp_path: Path, client_id: str):
    writer = spool.Writer(tmp_path)
    body = '{"text": "ünïcode \\n \\"}\\n", "more": [1, 2.50]}'
    writer.commit([spool.line("feedback", client_id, body.encode())])
    segment = writer.seal()
    assert segment is not None
    assert list(spool.read(segment)) == [Entry(1, "feedback", client_id, body)]


def test_line_breaks_between_tokens_become_spaces(tmp_path: Path):
    writer = spool.Writer(tmp_path)
    writer.commit([spool.line("traces", "app", b'{\r\n "a":\n1\n}')])
    segment = writer.seal()
    assert segment is not None
    assert list(spool.read(segment)) == [Entry(1, "traces", "app", '{   "a": 1 }')]


def test_a_segment_is_named_by_its_content(tmp_path: Path):
    names: set[str] = set()
    for folder in ("a", "b"):
        writer = spool.Writer(tmp_path / folder)
        writer.commit([line("one"), line("two")])
        writer.commit([line("three")])
        segment = writer.seal()
        assert segment is not None
        names.add(segment.name)
    assert len(names) == 1


def test_what_a_killed_writer_committed_is_recovered(tmp_path: Path):
    killed_writer(tmp_path, line("one"), line("two"))
    assert spool.sealed(tmp_path) == []
    (segment,) = spool.recover(tmp_path)
    assert segment.name == f"{hashlib.sha256(segment.read_bytes()).hexdigest()}.segment"
    assert bodies(tmp_path) == ["one", "two"]
    assert list(tmp_path.glob("*.partial")) == []


@pytest.mark.parametrize("kept_of_the_last", [1, 20, 40, len(line("torn")) - 1])
def test_a_torn_last_line_is_dropped_and_the_whole_ones_are_kept(
    tmp_path: Path, kept_of_the_last: int
):
    partial = killed_writer(tmp_path, line("one"), line("two"))
    with partial.open("ab") as file:
        file.write(line("torn")[:kept_of_the_last])
    (segment,) = spool.recover(tmp_path)
    assert segment.read_bytes() == line("one") + line("two")


def test_a_file_without_a_complete_line_is_deleted(tmp_path: Path):
    partial = killed_writer(tmp_path, line("one"))
    os.truncate(partial, 10)
    assert spool.recover(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_a_live_writers_segment_is_left_alone(tmp_path: Path):
    writer = spool.Writer(tmp_path)
    writer.commit([line("one")])
    assert spool.recover(tmp_path) == []
    writer.commit([line("two")])
    writer.seal()
    assert bodies(tmp_path) == ["one", "two"]


def test_two_writers_share_a_folder(tmp_path: Path):
    writers = [spool.Writer(tmp_path), spool.Writer(tmp_path)]
    for writer, text in zip(writers, ["one", "two"], strict=True):
        writer.commit([line(text)])
    for writer in writers:
        writer.seal()
    assert sorted(bodies(tmp_path)) == ["one", "two"]


def test_a_damaged_line_is_reported_and_the_others_are_read(tmp_path: Path):
    writer = spool.Writer(tmp_path)
    writer.commit([line("one"), b"\x00\xff\x00\n", line("three")])
    segment = writer.seal()
    assert segment is not None
    first, second, third = spool.read(segment)
    assert isinstance(first, Entry) and isinstance(third, Entry)
    reason = "the line is not one that a receiver writes"
    assert second == Damaged(2, b"\x00\xff\x00\n", reason)


def test_after_a_full_disk_the_committed_part_is_kept_and_writing_resumes(tmp_path: Path):
    code = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from components.store import spool\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "def most(size): resource.setrlimit(resource.RLIMIT_FSIZE, (size, -1))\n"
        "writer = spool.Writer(Path(sys.argv[1]))\n"
        "one, big, two = [spool.line('feedback', 'app', b'\"%s\"' % text)\n"
        "    for text in (b'one', b'x' * 9999, b'two')]\n"
        "writer.commit([one])\n"
        "most(5000)\n"
        "try: writer.commit([big])\n"
        "except OSError: pass\n"
        "else: sys.exit('the disk was not full')\n"
        "writer.commit([two])\n"
        "writer.seal()\n"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path], check=True)
    assert sorted(bodies(tmp_path)) == ["one", "two"]
    assert list(tmp_path.glob("*.partial")) == []
