"""A canary is shown with its evidence, on the page and in Prefect."""

from dataclasses import replace

from components.monitor import status_page
from components.monitor.canary_status import CanaryStatus, EvidencePoint, KindPoint
from components.monitor.serving_status import ServingStatus
from tests.components.monitor.test_status_page import HOSTILE, status

START = "2025-10-19T08:00:00.000+00:00"


def looks(*evidence: float) -> list[EvidencePoint]:
    """Return looks an hour apart, at which `slow` had this evidence."""
    return [
        EvidencePoint(
            f"2025-10-19T{9 + hour:02}:00:00.000+00:00",
            0.1 if hour < 2 else 0.5,
            {
                "slow": KindPoint(10 * hour, 4 * hour, worse, 0.5, 0.9, None),
                "cut": KindPoint(0, 1, 1.0, 2.0, 0.1, 3.5),
            },
        )
        for hour, worse in enumerate(evidence)
    ]


CANARY = CanaryStatus(
    id="0123456789ab",
    version="8",
    champion="7",
    started_at=START,
    state="roll back",
    reason="slow: 30 bad conversations",
    is_over=True,
    steps=[(0.1, 7200.0), (0.5, 3600.0)],
    deadline_seconds=10_800.0,
    margin=2.0,
    worse_bounds={"slow": 250.0, "cut": 250.0},
    within_bound=20.0,
    decisive=("cut",),
    requirement="it becomes champion once this is shown: cut",
    history=looks(1.0, 12.0, 90.0, 251.0),
)


def shown(canary: CanaryStatus) -> str:
    """Return the page of a workload with a canary."""
    about = status([], replace(ServingStatus(is_running=False), canaries=[canary]))
    return status_page.as_markdown(about).replace("\\", "")


def test_the_page_has_the_verdict_and_its_numbers() -> None:
    page = shown(CANARY)
    for text in (
        "8 beside 7",
        "roll back: slow: 30",
        "251 of 250",
        "once this is shown: cut",
        "cut (decisive)",
    ):
        assert text in page
    assert "0.1 for 2 h, then 0.5 for 1 h; undecided after 3 h" in page
    assert "251 of 250" in status_page.canary_markdown(CANARY)


def test_a_canary_without_a_look_and_none_at_all_are_pages_too() -> None:
    page = shown(replace(CANARY, history=[], state="waiting", is_over=False))
    assert "No evidence yet." in page
    about = status([], ServingStatus(is_running=False))
    assert "Canary" not in status_page.as_markdown(about)


def test_what_the_gateway_says_is_no_markup() -> None:
    assert "|`{{" not in shown(replace(CANARY, reason=HOSTILE))
