"""The `flywheel` command: `entry` is its entry point, a `*_commands` module for each noun.

Command modules import flows and components inside their functions, so that `--help` is quick.
"""
