"""What one client does to a gateway delays no other, fills no memory, and does not keep it up."""

from pathlib import Path

import pytest

from tests.benchmarks import hostile_gateway

NAMES = (
    "of merged properties",
    "slow ones of 12 clients",
    "a name in many spellings",
    "enum of 500,000, required",
    "24,000 calls",
    "dislikes of the canary",
    "dislikes of the champion",
    "long answers of the canary",
    "long answers of the champion",
    "examples in all prompts",
)
ATTACKS = {
    name: attack for group in hostile_gateway.ATTACKS.values() for name, attack in group.items()
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_an_attack_disturbs_no_other_client(name: str, tmp_path: Path):
    outcome = hostile_gateway.besiege(ATTACKS[name], tmp_path, seconds=4)
    assert not outcome.missed(), outcome
