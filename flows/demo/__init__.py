"""The demo's input: a small base model and real requests, both from package wheels.

The `flywheel demo` command is in flows/cli/demo_command.py.
"""
