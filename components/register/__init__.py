"""Runs, versions and champions in MLflow: `champion_change.promote` changes who is champion.

`registry` reads and writes versions, `logged_model` their files, `journal` records each change.
"""
