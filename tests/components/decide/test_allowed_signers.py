"""Keys are attributed as OpenSSH attributes them, with their periods and namespaces."""

import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from components.decide import ssh_signatures
from components.decide.approvers import Approving
from tests.support import ssh


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ssh.keygen(tmp_path_factory.mktemp("key"))


def public(key: Path) -> str:
    return " ".join(ssh.public(key).split()[:2])


def at(text: str) -> datetime:
    return datetime.strptime(text, "%Y%m%d").replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("line", "names"),
    [
        pytest.param("ada KEY", {"ada"}, id="plain"),
        pytest.param("# ada KEY", set[str](), id="comment"),
        pytest.param("ada,bob KEY ada@laptop", {"ada", "bob"}, id="two"),
        pytest.param('"ada b" KEY', {"ada b"}, id="quoted"),
        pytest.param("*@a.example,!eve@a.example KEY", {"bob@a.example"}, id="patterns"),
        pytest.param("a?a KEY", {"ada"}, id="one-character"),
        pytest.param('ada namespaces="git,flywheel" KEY', {"ada"}, id="namespaces"),
        pytest.param('ada namespaces="fly*" KEY', {"ada"}, id="namespace-pattern"),
        pytest.param('ada namespaces="git" KEY', set[str](), id="other-namespace"),
    ],
)
def test_a_line_belongs_to_the_same_people_as_for_ssh_keygen(
    tmp_path: Path, key: Path, line: str, names: set[str]
) -> None:
    line = line.replace("KEY", public(key))
    lines = ssh_signatures.parse(line)
    people = ("ada", "bob", "ada b", "bob@a.example", "eve@a.example")
    assert {name for name in people if any(line.is_of(name) for line in lines)} == names
    (tmp_path / "signers").write_text(line + "\n")
    (tmp_path / "sig").write_text(ssh.sign(key, "x"))
    for name in people:
        command = ["ssh-keygen", "-Y", "verify", "-n", "flywheel", "-I", name]
        command += ["-f", str(tmp_path / "signers"), "-s", str(tmp_path / "sig")]
        result = subprocess.run(command, input="x", text=True, capture_output=True, check=False)
        assert (result.returncode == 0) == (name in names), name


def test_a_key_is_valid_from_its_first_to_its_last_moment(key: Path) -> None:
    text = f'ada valid-after="20260101Z",valid-before="20260201Z" {public(key)}'
    (line,) = ssh_signatures.parse(text)
    days = ("20251231", "20260101", "20260115", "20260201", "20260202")
    assert [line.signer.is_valid(at(day)) for day in days] == [False, True, True, True, False]
    again = ssh_signatures.write_line("ada", line.signer)
    assert ssh_signatures.parse(again)[0].signer == line.signer


@pytest.mark.parametrize(
    ("line", "message"),
    [
        pytest.param("ada cert-authority KEY", "certificate authorities", id="authority"),
        pytest.param("ada valid-after=soon KEY", "'soon' is not a time", id="time"),
        pytest.param("ada verify-required KEY", "is not an option", id="option"),
        pytest.param("ada ssh-ed25519", "line 1", id="no-key"),
        pytest.param("ada ssh-ed25519 AAAA", "line 1", id="half-a-key"),
    ],
)
def test_an_invalid_line_is_refused(key: Path, line: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ssh_signatures.parse(line.replace("KEY", public(key)))


def test_keys_of_file_and_list_are_combined(tmp_path: Path, key: Path) -> None:
    other = ssh.keygen(tmp_path, "other")
    (tmp_path / "signers").write_text(f"ada {public(other)}\n")
    listed = {"name": "ada", "keys": [ssh.public(key)]}
    section = {"proof": "signature", "approvers": [listed], "allowed_signers": tmp_path / "signers"}
    (person,) = Approving.model_validate(section).rules().people
    assert len(person.signers) == 2


@pytest.mark.parametrize(
    ("people", "message"),
    [
        pytest.param(["bob"], "bob has no key to sign with", id="no-key"),
        pytest.param(["ada", "adam"], "ada and adam have the same key", id="one-key-for-two"),
    ],
)
def test_people_without_a_key_or_with_a_shared_key_are_refused(
    tmp_path: Path, key: Path, people: list[str], message: str
) -> None:
    (tmp_path / "signers").write_text(f"ada* {public(key)}\n")
    section = {
        "proof": "signature",
        "approvers": [{"name": name} for name in people],
        "allowed_signers": tmp_path / "signers",
    }
    with pytest.raises(ValueError, match=message):
        Approving.model_validate(section).rules()
