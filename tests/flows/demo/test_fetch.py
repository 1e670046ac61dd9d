"""What the demo fetches is what was pinned, and is fetched once."""

import hashlib
import subprocess
import zipfile
from pathlib import Path

import pytest

from flows.demo import wheels
from flows.demo.wheels import Wheel


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give pip a folder in place of the package index."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def publish(index: Path, text: str) -> Wheel:
    """Build a wheel into the index."""
    path = index / "demo_traffic-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("demo_traffic/rows.json", text)
        archive.writestr(
            "demo_traffic-1.0.dist-info/METADATA",
            "Metadata-Version: 2.1\nName: demo-traffic\nVersion: 1.0\n",
        )
        archive.writestr(
            "demo_traffic-1.0.dist-info/WHEEL",
            "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        archive.writestr("demo_traffic-1.0.dist-info/RECORD", "")
    return Wheel("demo-traffic==1.0", path.name, hashlib.sha256(path.read_bytes()).hexdigest())


def test_a_wheel_is_downloaded_once(index: Path, tmp_path: Path):
    wheel = publish(index, "rows")
    messages: list[str] = []
    first = wheels.download_wheel(tmp_path / "cache", wheel, messages.append)
    (index / wheel.file).unlink()
    again = wheels.download_wheel(tmp_path / "cache", wheel, messages.append)
    assert first == again
    assert first.exists()
    assert messages == ["downloading demo-traffic==1.0"]


def test_a_damaged_copy_is_fetched_anew(index: Path, tmp_path: Path):
    wheel = publish(index, "rows")
    path = wheels.download_wheel(tmp_path / "cache", wheel, lambda _: None)
    path.write_bytes(path.read_bytes()[:-9])
    wheels.download_wheel(tmp_path / "cache", wheel, lambda _: None)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == wheel.sha256


def test_another_content_under_the_same_version_is_refused(index: Path, tmp_path: Path):
    pinned = publish(index, "rows")
    publish(index, "other rows")
    with pytest.raises(subprocess.CalledProcessError):
        wheels.download_wheel(tmp_path / "cache", pinned, lambda _: None)
    assert not list((tmp_path / "cache").glob("*.whl"))
