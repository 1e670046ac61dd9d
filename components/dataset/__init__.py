"""Freeze curated examples into an immutable snapshot folder."""
