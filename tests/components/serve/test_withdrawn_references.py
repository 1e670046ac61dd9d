"""Of a withdrawn version no references stay, which hold what it answered."""

import asyncio
from pathlib import Path

import pytest

from components.serve.follower import Follower, following
from components.serve.routes import Current
from components.serve.serve_places import ServePlaces
from components.serve.settings import ServeSettings
from components.serve.swap_journal import FILE
from tests.support.fake_replicas import fake_replica, stage


def serve(home: Path, *, is_journal_broken: bool) -> tuple[list[str], list[str]]:
    """Serve two versions and withdraw the second; return who serves, and whose references stay."""

    async def scenario(url: str) -> tuple[list[str], list[str]]:
        engine = {"kind": "vllm", "base_name": "the-base", "replicas": [{"name": "a", "url": url}]}
        settings = ServeSettings.model_validate({"engine": engine})
        current, places = Current(), ServePlaces(home)
        async with following(settings, places, None, current) as follower:
            staged = [stage(places.folder, "support", number) for number in (1, 2)]
            places.references.mkdir()
            for each in staged:
                await follower.swap.follow(each)
                for precision in ("fp32", "bf16"):
                    (places.references / f"{each.adapter}-0123456789ab-{precision}.json").touch()
            names = {each.adapter: each.version for each in staged}
            await withdraw(follower)
            served = [each.version for each in current.routes.all_served()]
            kept = sorted(places.references.iterdir())
            return served, [names[path.name.partition("-")[0]] for path in kept]

    async def withdraw(follower: Follower) -> None:
        if not is_journal_broken:
            await follower.withdraw("support", ["2"], "erased")
            return
        journal = ServePlaces(home).folder / FILE
        journal.unlink()
        journal.mkdir()
        with pytest.raises(IsADirectoryError):
            await follower.withdraw("support", ["2"], "erased")

    with fake_replica() as replica:
        return asyncio.run(scenario(replica.url))


@pytest.mark.parametrize("is_journal_broken", [False, True])
def test_only_the_references_of_the_withdrawn_version_are_deleted(
    tmp_path: Path, is_journal_broken: bool
):
    served, kept = serve(tmp_path, is_journal_broken=is_journal_broken)
    assert served == ["1"]
    assert kept == ["1", "1"]
