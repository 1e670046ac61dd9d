"""Tasks of our own beside the holdout; `task_registry` lists them."""
