"""Render requests as prompt text and parse a model's text as an answer.

Start at `prompt`; `chat_templates` chooses between a base's own template and our format,
`answer_start` finds where answers begin, `dialects` are the tool-call syntaxes, `tool_schema`
validates arguments, `token_counts` counts tokens, `refusal_text` recognises refusals.
"""
