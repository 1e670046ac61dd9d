"""Freeze curated examples into an immutable snapshot folder.

freeze_snapshot is the entry point; example_rows and preference_files write Parquet, dataset_card
describes the folder from snapshot_figures, which also compares two snapshots.
"""
