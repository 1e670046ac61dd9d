"""The embedded stack: Prefect, MLflow and two workers under one supervisor on one machine.

`control` brings it up and down; `supervisor` is the process that holds the others.
"""
