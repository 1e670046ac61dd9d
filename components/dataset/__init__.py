"""Freeze curated examples into an immutable snapshot folder.

freeze_snapshot is the way in; example_rows and preference_files write Parquet, dataset_card
(with dataset_charts) describes the folder from snapshot_figures, snapshot_diff compares two.
"""
