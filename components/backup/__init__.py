"""Backup: all that a home holds in one archive, taken while it works, and put back whole.

``copying`` takes databases that others write to, ``archive`` packs, checks and unpacks.
"""
