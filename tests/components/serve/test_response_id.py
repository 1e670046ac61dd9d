"""An id proves which client was given an answer by which workload, and nothing else does."""

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.serve import response_id
from components.serve.response_id import KnownResponse, Prefix, ResponseKeyError

KEY = bytes(range(32))
PREFIXES: tuple[Prefix, ...] = ("chatcmpl-", "cmpl-", "resp_")
NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)


@given(client=NAMES, workload=NAMES, is_stored=st.booleans())
def test_an_id_names_its_workload_to_its_client(client: str, workload: str, is_stored: bool):
    made = response_id.create(KEY, client, workload, "chatcmpl-", is_stored=is_stored)
    assert response_id.verify(KEY, client, made) == KnownResponse(workload, is_stored)
    assert response_id.verify(KEY, f"{client}x", made) is None
    assert response_id.verify(bytes(32), client, made) is None


@given(text=st.text(max_size=80))
def test_an_invented_id_proves_nothing(text: str):
    assert response_id.verify(KEY, "app", text) is None
    assert response_id.verify(KEY, "app", f"chatcmpl-{text}") is None


@given(place=st.integers(0, 40), character=st.sampled_from("abcxyzABCXYZ0189._-%=+/"))
def test_a_changed_id_proves_nothing(place: int, character: str):
    made = response_id.create(KEY, "app", "support", "chatcmpl-", is_stored=True)
    place += len("chatcmpl-")
    changed = made[:place] + character + made[place + 1 :]
    proof = response_id.verify(KEY, "app", changed)
    assert (proof is not None) == (changed == made)


def test_an_id_that_is_written_otherwise_proves_nothing():
    made = response_id.create(KEY, "app", "a/support", "chatcmpl-", is_stored=True)
    assert made.endswith("-a%2Fsupport")
    for name in ("a%2fsupport", "a/support", "a%2F%73upport"):
        assert response_id.verify(KEY, "app", made.replace("a%2Fsupport", name)) is None


def test_client_and_workload_are_not_run_together():
    made = response_id.create(KEY, "ab", "c", "cmpl-", is_stored=True)
    moved = made.removesuffix("-c") + "-bc"
    assert response_id.verify(KEY, "a", moved) is None


@pytest.mark.parametrize("prefix", PREFIXES)
def test_an_answer_has_one_id_and_a_part_that_no_other_answer_has(prefix: Prefix):
    made = response_id.create(KEY, "app", "a-b", prefix, is_stored=True)
    text = made.removeprefix(prefix)
    proofs = {other: response_id.verify(KEY, "app", other + text) for other in PREFIXES}
    assert {other for other, proof in proofs.items() if proof is not None} == {prefix}
    assert response_id.short(made) == text.removesuffix("-a-b")


def test_ids_are_short_and_differ():
    made = {
        response_id.create(KEY, "app", "support", "chatcmpl-", is_stored=True) for _ in range(99)
    }
    assert len(made) == 99
    assert max(map(len, made)) == len("chatcmpl-") + 27 + len("-support")


def test_the_key_is_made_once_for_its_owner_only(tmp_path: Path):
    with ThreadPoolExecutor(8) as pool:
        keys = set(pool.map(response_id.read_key, [tmp_path / "keys"] * 16))
    assert len(keys) == 1
    (path,) = (tmp_path / "keys").iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_damaged_key_is_refused(tmp_path: Path):
    (tmp_path / response_id.KEY_FILE).write_bytes(b"short")
    with pytest.raises(ResponseKeyError, match="it has 5 bytes"):
        response_id.read_key(tmp_path)
