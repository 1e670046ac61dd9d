"""Runs and versions in MLflow: `registry` reads and writes versions, `logged_model` their files."""
