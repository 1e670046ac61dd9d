"""Runs, versions and champions in MLflow: `champion_change` plans and carries out changes.

`registry` reads and writes versions, `logged_model` their files, `journal` records each change.
"""
