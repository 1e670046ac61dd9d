"""The order: what runs when, what is retried.

The only place that knows Prefect, YAML, environment variables and command lines.
"""
