"""Write the chain for auditors: JSON lines that anybody can verify with SHA-256 alone.

``content`` is the very text that ``digest`` is of, and has the digest of the line before it in it
as ``before``. Each of ``words`` is digested under its salt: SHA-256 of the salt and the text, one
after the other, is the ``..._digest`` of that name in the content. An erased text is null.
"""

import json
from collections.abc import Iterable
from pathlib import Path

from components import manifest
from components.decide import allowed_signers, chain, rules, statement
from components.decide.chain import Link

VERIFY = r"""
count=0
for file in *.json; do
  at=${file#*@} at=${at%.json}
  who=$(ssh-keygen -Y find-principals -f allowed_signers -O verify-time="$at" -s "$file.sig")
  case $(cat "$file") in *"\"approver\":\"$who\""*) ;; *) echo "not by $who: $file"; exit 1 ;; esac
  ssh-keygen -Y verify -n flywheel -f allowed_signers -I "$who" -O verify-time="$at" \
    -s "$file.sig" < "$file" || exit 1
  count=$((count + 1))
done
echo "verified $count"
"""
"""What verifies a folder of signed statements, in any shell, with OpenSSH and ``cat`` alone."""

README = f"""\
# Signed decisions

`NUMBER@TIME.json` is what a person signed, `.json.sig` the signature, and `allowed_signers` says
which key is whose. To verify them without Flywheel, run this in a shell in this folder:

```sh{VERIFY}```

It ends with `verified` and the number of decisions, or with the first that was not signed as it is
here. Compare the keys in `allowed_signers` with those that the people themselves give you, and the
number with the decisions that the chain names (the file beside this folder).
"""


def write(path: Path, links: Iterable[Link]) -> int:
    """Write one line for each link; return how many."""
    lines = [line(link) for link in links]
    path.parent.mkdir(parents=True, exist_ok=True)
    manifest.write_atomically(path, "".join(lines))
    return len(lines)


def signed_folder(path: Path) -> Path:
    """Name the folder of signed statements that goes with an export."""
    return path.with_name(f"{path.name}.signed")


def write_signed(path: Path, links: Iterable[Link]) -> int:
    """Write each signed statement, its signature, and whose keys are whose; return how many.

    ``NUMBER@TIME.json`` is the statement, ``.json.sig`` its signature; ``allowed_signers``
    has the keys of all rules that the chain has. ``ssh-keygen -Y verify`` needs no more, and
    ``README.md`` says how.
    """
    folder, count = signed_folder(path), 0
    lines: dict[str, None] = {}
    for link in links:
        if link.document is None:
            continue
        if link.kind == "rules":
            people = rules.read(link.document).people
            lines |= {allowed_signers.write(p.name, key): None for p in people for key in p.signers}
        elif signed := statement.split(link.document):
            folder.mkdir(parents=True, exist_ok=True)
            at = statement.read(signed.line).signed_at
            file = folder / f"{link.sequence:07}@{at:%Y%m%d%H%M%SZ}.json"
            manifest.write_atomically(file, signed.line)
            manifest.write_atomically(file.with_name(f"{file.name}.sig"), signed.armored)
            count += 1
    if count:
        manifest.write_atomically(folder / "allowed_signers", "".join(lines))
        manifest.write_atomically(folder / "README.md", README)
    return count


def line(link: Link) -> str:
    """Write one link."""
    words = {
        name: None
        if getattr(link, name) is None
        else {"salt": getattr(link, f"{name}_salt"), "text": getattr(link, name)}
        for name in link.texts
    }
    told = {
        "sequence": link.sequence,
        "digest": link.digest,
        "content": chain.content(link),
        "words": words,
    }
    return json.dumps(told, ensure_ascii=False) + "\n"


def first_differing(path: Path, links: Iterable[Link]) -> int | None:
    """Hold the chain against an earlier export; give the first line that is no longer so.

    A chain that somebody wrote anew from end to end holds by itself, but not against what an
    auditor took along before.
    """
    now = {link.sequence: link.digest for link in links}
    for number, text in enumerate(path.read_text().splitlines(), 1):
        told = json.loads(text)
        if now.get(int(told["sequence"])) != told["digest"]:
            return number
    return None
