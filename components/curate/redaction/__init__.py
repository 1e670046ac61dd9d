"""Replace personal data and secrets in a conversation by surrogates, or by ``<EMAIL_1>``.

conversations is the entry point. redactor visits a conversation's texts (json_texts) and detector
finds values in them: patterns of contact, identity_numbers, secret_values, name_patterns (word
lists in ``words/``) and field_patterns, and presidio if configured. placeholders numbers equal
values; surrogate_keys has the conversations' keys, under which ``extensions.surrogates`` draws.
clean_exchanges remembers the exchanges of feedback in which nothing was found.
"""
