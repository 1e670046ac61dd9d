"""The parts: plain functions and frozen records, one package a stage.

No Prefect, no environment variables, no command line.
"""
