"""Forms of particular products' logs: a source a module, and conventions of spans beside GenAI's.

``components.collect.importers`` names them; collecting imports those that it needs.
"""
