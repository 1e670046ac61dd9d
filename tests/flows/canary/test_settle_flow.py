"""The flow that settles canaries tells people and keeps the evidence; maintenance runs it, too."""

from pathlib import Path

import pytest

from components.decide import decision_log
from components.register.registry import Aliases
from components.store import warehouse
from tests.support import canary_home
from tests.support.canary_home import CanaryHome

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect_server")]


def canary(home: canary_home.Settings, name: str) -> CanaryHome:
    """Start a canary of version 2 beside champion 1."""
    made = CanaryHome(home, name)
    made.describe()
    made.serve("settled", "stuck")
    made.approve(1)
    made.approve(2)
    return made


def artifacts(key: str) -> list[str]:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

    with get_client(sync_client=True) as client:
        read = client.read_artifacts(
            artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=[key]))
        )
    return [str(artifact.data) for artifact in read]


def test_one_canary_that_cannot_be_settled_keeps_no_other_from_it(tmp_path: Path) -> None:
    from flows.canary.settle_rollouts import UnsettledRolloutsError, settle_rollouts
    from flows.maintenance import maintenance

    with canary_home.empty_home(tmp_path) as home:
        settled, stuck = canary(home, "settled"), canary(home, "stuck")
        settled.report_counts((300, 60))
        stuck.report("hold")  # without the evidence for it
        with pytest.raises(UnsettledRolloutsError, match=r"stuck: .* says `hold` for version 2"):
            settle_rollouts()
        assert settled.aliases() == Aliases(champion="1")
        (page,) = artifacts("canary-settled")
        assert "roll back: slow: 300 bad conversations" in page.replace("\\", "")
        assert artifacts("canary-stuck") == []
        assert settle_rollouts("settled") == "nothing to do"
        assert settle_rollouts("../elsewhere") == "nothing to do"
        stuck.report_counts((300, 60))
        assert "1 canaries were settled" in maintenance(verify=True)
        assert stuck.aliases() == Aliases(champion="1")


def test_what_held_becomes_champion_before_a_later_approval_is_carried_out(tmp_path: Path) -> None:
    from flows.promote import promote

    with canary_home.empty_home(tmp_path) as home:
        held = canary(home, "settled")
        held.make_decisive()
        later = held.ask(3)
        assert held.report_counts((400, 400)) == "hold"
        held.decide(later)
        with pytest.raises(Exception, match="turn/turn"):  # evaluates again; none is deployed here
            promote(workload="settled", evidence=later.digest)
        assert held.aliases() == Aliases(champion="2", previous="1")
        with warehouse.connect(home.warehouse) as con:
            *_, last = decision_log.links(con, evidence=later.digest)
        assert last.kind == "lapsed"
        assert "the champion is now version 2" in (last.comment or "")
