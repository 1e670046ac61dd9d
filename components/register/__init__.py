"""Track runs and register champions in MLflow."""
