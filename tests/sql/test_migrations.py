"""Homes are upgraded: what one may have applied is not changed afterwards."""

import hashlib
import json
from pathlib import Path

import sql

MIGRATIONS = Path(sql.__path__[0]) / "migrations"
RELEASED = Path(__file__).with_name("migrations.json")
"""The SHA-256 of each migration that some home may have applied."""


def test_no_migration_is_changed_once_a_home_may_have_applied_it() -> None:
    now = {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in MIGRATIONS.glob("*.sql")
    }
    assert len({name[:4] for name in now}) == len(now), "two migrations of one number"
    released = json.loads(RELEASED.read_text())
    changed = sorted(name for name, digest in released.items() if now.get(name) != digest)
    assert not changed, f"{changed} may be applied already: write the change as a new migration"
    assert not now.keys() - released.keys(), f"add to {RELEASED}: {now}"
