"""The parts of a turn: plain functions and frozen records, one package for each stage.

No Prefect, no environment variables, no command line. Stages do not import each other; they
share schema, scorecard, costs and canaries (records and rules), store (warehouse and files),
chat (prompts and tool calls), models (bases and devices) and pages (charts and Markdown).
"""
