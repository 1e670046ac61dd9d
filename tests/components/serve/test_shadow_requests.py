"""A shadow begins when no user's request has come for a moment, or never."""

import asyncio

from components.serve import shadow_requests
from components.serve.shadow_requests import ShadowRequests

BUSY_FROM = 2
QUIET_SECONDS = 0.2  # longer than a busy machine keeps a test waiting


class CountedShadows:
    """Shadows that count how many were asked and how many were shed."""

    def __init__(self) -> None:
        self.shadows = ShadowRequests(BUSY_FROM, QUIET_SECONDS)
        self.asked = self.shed = 0

    def begin(self, open_requests: int = 1) -> None:
        self.shadows.begin(open_requests, self._ask, self._shed)

    async def busy_for(self, seconds: float) -> None:
        """Have a request come every millisecond, as from one client without a pause."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while loop.time() < end:
            self.shadows.make_room(1)
            await asyncio.sleep(0.001)

    async def _ask(self) -> None:
        self.asked += 1

    def _shed(self) -> None:
        self.shed += 1


def test_a_shadow_waits_until_no_request_comes() -> None:
    async def scenario() -> None:
        counted = CountedShadows()
        counted.begin()
        await counted.busy_for(2 * QUIET_SECONDS)
        assert (counted.asked, counted.shed) == (0, 0)
        await asyncio.sleep(2 * QUIET_SECONDS)
        assert (counted.asked, counted.shed, len(counted.shadows)) == (1, 0, 0)

    asyncio.run(scenario())


def test_a_shadow_that_finds_no_quiet_moment_is_shed() -> None:
    async def scenario() -> None:
        counted = CountedShadows()
        for _ in range(shadow_requests.AT_ONCE + 3):
            counted.begin()
        assert counted.shed == 3
        async with asyncio.timeout(shadow_requests.PATIENCE_SECONDS + 30):
            while counted.shed < shadow_requests.AT_ONCE + 3:  # a busy machine tells it late
                await counted.busy_for(QUIET_SECONDS)
        assert counted.asked == 0

    asyncio.run(scenario())


def test_users_who_need_the_room_end_a_shadow_that_waits() -> None:
    async def scenario() -> None:
        counted = CountedShadows()
        counted.begin(BUSY_FROM)
        assert counted.shed == 1
        counted.begin()
        counted.shadows.make_room(BUSY_FROM)
        await asyncio.sleep(2 * QUIET_SECONDS)
        assert (counted.asked, counted.shed, len(counted.shadows)) == (0, 2, 0)
        counted.begin()
        await counted.shadows.close()
        assert counted.asked == 0

    asyncio.run(scenario())
