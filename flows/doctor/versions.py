"""Whether the packages are those that were tested together."""

from collections.abc import Mapping

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from flows.doctor.finding import Finding, fine, note, wrong


def pins(text: str) -> dict[str, str]:
    """Read ``name==version`` lines, as in ``infra/constraints.txt``."""
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    pairs = (line.split("==") for line in lines if "==" in line)
    return {canonicalize_name(name): version for name, version in pairs}


def check(
    required: list[Requirement], installed: Mapping[str, str], tested: Mapping[str, str]
) -> list[Finding]:
    """Compare what is installed with what our package wants, and with what was tested.

    Args:
        required: Our own requirements, without those of extras that are not wanted.
        installed: The version of each package that is there.
        tested: The pins; empty where the list is not at hand.
    """
    found = [*filter(None, (_wanted(one, installed.get(_name(one))) for one in required))]
    other = [
        name
        for name in map(_name, required)
        if name in installed and tested.get(name, installed[name]) != installed[name]
    ]
    if other:
        found.append(
            note(
                "versions",
                "not the tested ones: "
                + ", ".join(f"{name} {installed[name]} (tested {tested[name]})" for name in other),
                f"pip install {' '.join(f'{name}=={tested[name]}' for name in other)}",
            )
        )
    return found or [fine("versions", f"{len(required)} packages as wanted")]


def _name(one: Requirement) -> str:
    return canonicalize_name(one.name)


def _wanted(one: Requirement, version: str | None) -> Finding | None:
    if version is None:
        return wrong("versions", f"{one.name} is not installed", f"pip install '{one}'")
    if not one.specifier.contains(version, prereleases=True):
        return wrong(
            "versions", f"{one.name} is {version}, wants {one.specifier}", f"pip install '{one}'"
        )
    return None
