"""Tell which requests are so alike that they must not be parted, and of which one is enough.

What is compared are the *words*: what users, the assistant and tools said, without the system
prompt and the list of tools. Those are long and the same for all requests of an application: with
them in, all short questions under one system prompt would be near-duplicates.

- Near words under equal tools, in whatever order, make a cluster (``cluster_id``): such rows never
  stand on both sides of the split. The system prompt may differ: its clock and its wording change,
  and the question that was trained on must not be tested on for that.
- Within a cluster, requests that want the same kind of answer are twins (``twin_id``), of which one
  is learned: their system prompts are near, and they have the same turns in the same roles and the
  same last message. So all turns of a conversation are learned, though each repeats those before
  it, and so is "no, cancel it" beside "yes, book it".
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from components import manifest
from components.curate.near import clusters
from components.schema import Message


@dataclass(frozen=True, slots=True)
class Request:
    """What is compared of one request; ``tools`` and ``form`` (roles, last message) are digests.

    ``asked`` is what users said of the ``words``.
    """

    words: str
    asked: str
    system: str
    tools: str
    form: str


@dataclass(frozen=True, slots=True)
class Place:
    """Which requests one is near to: each id is the smallest interaction id of those it names."""

    cluster_id: str
    twin_id: str


def read(
    rendered: Sequence[Message], system: Sequence[str], asked: Sequence[str], tools: str
) -> Request:
    """Take a request apart.

    Args:
        rendered: Its messages as the model reads them.
        system: What of them the application said as the system.
        asked: What of them users said.
        tools: The JSON of the tools that it offers.
    """
    turns = [message for message in rendered if message["role"] != "system"]
    last = " ".join(turns[-1]["content"].casefold().split()) if len(turns) > 1 else ""
    return Request(
        words="\n".join(turn["content"] for turn in turns),
        asked="\n".join(asked),
        system="\n\n".join(system),
        tools=_offered(tools),
        form=manifest.digest([[turn["role"] for turn in turns], last]),
    )


def place(ids: Sequence[str], requests: Sequence[Request], jaccard: float) -> list[Place]:
    """Give each request's cluster and twins; the order of the requests does not matter."""
    words = clusters.find(ids, [request.words for request in requests], jaccard).cluster_ids
    systems = sorted({request.system for request in requests})
    alike = dict(zip(systems, clusters.find(systems, systems, jaccard).cluster_ids, strict=True))
    near = _smallest(ids, [(name, one.tools) for name, one in zip(words, requests, strict=True)])
    twins = _smallest(
        ids, [(name, alike[one.system], one.form) for name, one in zip(near, requests, strict=True)]
    )
    return [Place(*found) for found in zip(near, twins, strict=True)]


def _smallest(ids: Sequence[str], keys: Sequence[tuple[str, ...]]) -> list[str]:
    """Give for each id the smallest id of an equal key."""
    smallest: dict[tuple[str, ...], str] = {}
    for name, key in zip(ids, keys, strict=True):
        smallest[key] = min(name, smallest.get(key, name))
    return [smallest[key] for key in keys]


@lru_cache(maxsize=4096)
def _offered(tools: str) -> str:
    """Digest a list of tools, whatever its order; most requests of an application have the same."""
    return manifest.digest(sorted({json.dumps(one, sort_keys=True) for one in json.loads(tools)}))
