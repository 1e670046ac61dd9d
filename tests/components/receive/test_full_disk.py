"""A receiver with a full disk refuses requests, loses nothing, and resumes when there is room."""

from pathlib import Path

from tests.support import logs, receivers, small_disk

KIB = 2**10


def test_a_full_disk_refuses_requests_and_keeps_acknowledged_records(tmp_path: Path):
    with small_disk.mounted(tmp_path / "home", "1m") as home, receivers.running(home) as receiver:
        acknowledged: list[str] = []

        def send(name: str, size: int = KIB) -> int:
            line = logs.interaction("x" * size, response_id=name)
            answer = receiver.post("/v1/interactions", json=line)
            if answer.status_code == 200:
                acknowledged.append(name)
            else:
                assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
                assert "No space left on device" in answer.json()["detail"]
            return answer.status_code

        assert send("before") == 200
        ballast = small_disk.fill(home)
        assert [send(f"full-{number}", 64 * KIB) for number in range(3)] == [503] * 3
        assert receiver.get("/healthz").status_code == 503
        ballast.unlink()
        assert send("after") == 200
        assert receiver.get("/healthz").status_code == 200
        receiver.stop()
        stored = [
            name for entry in receiver.stored() for name in acknowledged if name in entry.body
        ]
        assert stored == acknowledged == ["before", "after"]
        assert len(receiver.stored()) == 2
