"""Charts in one style (charts), the Jinja environment of pages (templates), and visible_text."""
