"""The secret of an approver's codes may be kept by Prefect, which encrypts it."""

from pathlib import Path

import pytest

from components.decide import totp
from components.decide.approvers import Approver
from flows import secret_blocks, secrets, settings

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect_server")]

ADA = Approver(name="ada", secret_block="adas-codes")


def test_a_secret_is_kept_in_a_block_and_replaced_only_if_asked(tmp_path: Path) -> None:
    home = settings.load({"FLYWHEEL_HOME": str(tmp_path)})
    assert secrets.find(home, ADA) is None
    drawn = secret_blocks.enrol("ada", "adas-codes", again=False)
    assert totp.is_secret(drawn)
    assert secrets.find(home, ADA) == drawn
    with pytest.raises(secrets.SecretError, match="--again replaces one that is there"):
        secret_blocks.enrol("ada", "adas-codes", again=False)
    other = secret_blocks.enrol("ada", "adas-codes", again=True)
    assert secrets.find(home, ADA) == other != drawn
    assert not (tmp_path / "approvers").exists()


def test_a_block_that_holds_something_else_is_no_secret(tmp_path: Path) -> None:
    from prefect.blocks.system import Secret

    Secret[str](value="hunter2").save("a-password")  # pyright: ignore[reportArgumentType] - it takes plain text
    home = settings.load({"FLYWHEEL_HOME": str(tmp_path)})
    with pytest.raises(secrets.SecretError, match="the Secret block a-password holds no secret"):
        secrets.find(home, Approver(name="ada", secret_block="a-password"))
