"""The common style of charts (charts) and the Jinja environment of pages (templates)."""
