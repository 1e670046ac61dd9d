"""Releases: who is champion, by one ledger, and what follows it.

`release_state` derives the champion from the chain of decisions, plans and appends changes;
`champion_alias` lets MLflow follow; `champion_files` has what serves a rollback while others hold
the warehouse. `ancestry` traces a version to its inputs.
"""
