"""Forms of particular products' logs, fine-tuning files, maps, and further APIs: a module each.

``components.collect.importers`` names them; collecting imports those that it needs.
"""
