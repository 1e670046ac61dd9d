"""Built-in tasks besides the holdout; `task_registry` lists them."""
