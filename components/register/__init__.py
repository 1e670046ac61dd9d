"""Track runs, register versions, and change who is champion, in MLflow."""
