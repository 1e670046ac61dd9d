"""Orchestration: Prefect flows, the command line and the embedded stack; stages live in components.

One module for each flow (collect, curate, train, search, evaluate, turn, promote, rollback, prune,
maintenance, canary.settle_rollouts; consider and monitor in monitor). Start reading at turn.py.
cli/ is the `flywheel` command, canary/ what `trials` finds, stack/ the embedded servers and
workers, jobs/ the processes that load torch, doctor/ the checks of an installation, demo/ the data
of the demo.
"""
