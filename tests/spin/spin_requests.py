"""Which requests the spin's application sends, and which stay sealed for its score."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from components.store import manifest
from flows.demo import traffic
from flows.demo.wheels import BfclRequest
from tests.spin import people

SEALED = 60  # requests that no turn sees
MAX_PROMPT = 450  # bytes as rendered: the demo's limit is 1,200, and this has to be served, too
RAREST = 3  # a sealed tool is offered in at most so many requests, which are lost to the traffic


@dataclass(frozen=True, slots=True)
class SpinRequests:
    """The application's requests in their order, and the sealed ones."""

    sent: Sequence[BfclRequest]
    sealed: Sequence[BfclRequest]


def choose_requests(requests: Sequence[BfclRequest], seed: int) -> SpinRequests:
    """Choose distinct short requests; none that is sent offers a tool of a sealed one.

    Sealed are one request of each set of tools, in the order of the hash of the set.
    """
    distinct = {
        (traffic.said_words(request), request.tool_names): request
        for request in traffic.in_order(requests, seed)
        if traffic.is_short(request, MAX_PROMPT)
        # A few references have no acceptable value for an argument.
        and people.is_right(request, traffic.right_answer(request))
    }.values()
    offered = Counter(name for request in distinct for name in request.tool_names)
    sealed, names = list[BfclRequest](), set[str]()
    for request in sorted(distinct, key=lambda r: manifest.digest([seed, *r.tool_names])):
        is_rare = max(offered[name] for name in request.tool_names) <= RAREST
        if len(sealed) < SEALED and is_rare and names.isdisjoint(request.tool_names):
            sealed.append(request)
            names.update(request.tool_names)
    sent, alike = list[BfclRequest](), Counter[tuple[str, ...]]()
    for request in distinct:
        group = ("call" if request.call else "none", *request.tool_names)
        if names.isdisjoint(request.tool_names) and alike[group] < traffic.MAX_ALIKE:
            alike[group] += 1
            sent.append(request)
    return SpinRequests(sent, sealed)
