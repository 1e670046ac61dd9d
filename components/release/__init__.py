"""Releases: who is champion, by one ledger, and what follows it.

`release_state` derives the champion from the chain of decisions, plans and appends changes;
`champions` carries them out and recovers them, by the `rollback_rules`; `releases` signs versions
and compares them with the chain; `champion_alias` lets MLflow follow; `champion_files` has what
serves a rollback while others hold the warehouse, and what they read of a home. `ancestry` traces a
version to its inputs.
"""
