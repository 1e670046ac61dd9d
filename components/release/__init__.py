"""Releases: who is champion, by one ledger, and what follows it.

`release_state` derives the champion from the chain of decisions, appends changes, and keeps what
serves a rollback while others hold the warehouse; `champions` carries changes out and recovers
them, by the `rollback_rules`; `releases` signs versions and compares them with the chain;
`champion_alias` lets MLflow follow; `installation` is what they read of a home. `ancestry` traces a
version to its inputs.
"""
