"""Export the log of decisions for auditors, who verify it with OpenSSH alone."""

import json
from collections.abc import Iterable
from pathlib import Path

from components.decide import approvers, chain, ssh_signatures, statement
from components.decide.chain import Link
from components.store import manifest

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
"""A shell script that verifies a folder of signed statements with OpenSSH and ``cat`` only."""

README = f"""\
# Signed decisions

`NUMBER@TIME.json` is what a person signed, `.json.sig` the signature, and `allowed_signers` says
which key is whose. To verify them without Flywheel, run this in a shell in this folder:

```sh{VERIFY}```

It ends with `verified` and the number of decisions, or with the first that was not signed as it is
here. Compare the keys in `allowed_signers` with those that the people themselves give you, and the
number with the decisions that the chain names (the file beside this folder).
"""


def export_links(path: Path, links: Iterable[Link]) -> int:
    """Write one line per link; return their number."""
    lines = [_link_line(link) for link in links]
    path.parent.mkdir(parents=True, exist_ok=True)
    manifest.write_atomically(path, "".join(lines))
    return len(lines)


def signed_folder(path: Path) -> Path:
    """Return the folder of an export's signed statements."""
    return path.with_name(f"{path.name}.signed")


def export_signed(path: Path, links: Iterable[Link]) -> int:
    """Write each signed statement with its signature, and the keys; return how many.

    ``NUMBER@TIME.json`` is the statement, ``.json.sig`` its signature; ``allowed_signers`` has
    the keys of all rules in the chain, and ``README.md`` shows how OpenSSH verifies them.
    """
    folder, count = signed_folder(path), 0
    lines: dict[str, None] = {}
    for link in links:
        if link.document is None:
            continue
        if link.kind == "rules":
            people = approvers.read_rules(link.document).people
            lines |= {
                ssh_signatures.write_line(p.name, key): None for p in people for key in p.signers
            }
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


def _link_line(link: Link) -> str:
    words = {
        name: None
        if getattr(link, name) is None
        else {"salt": getattr(link, f"{name}_salt"), "text": getattr(link, name)}
        for name in link.texts
    }
    numbered = {"sequence": link.sequence, "digest": link.digest}
    record = {**numbered, "content": chain.content(link), "words": words}
    return json.dumps(record, ensure_ascii=False) + "\n"


def first_differing_line(path: Path, links: Iterable[Link]) -> int | None:
    """Compare the chain with an earlier export; return the number of the first differing line.

    A completely rewritten chain is consistent in itself, but differs from an earlier export.
    """
    now = {link.sequence: link.digest for link in links}
    # Not ``splitlines``, which also parts a text at the line breaks that Unicode has besides.
    texts = path.read_text().removesuffix("\n").split("\n")
    lines = enumerate(map(json.loads, filter(None, texts)), 1)
    return next((n for n, line in lines if now.get(line["sequence"]) != line["digest"]), None)
