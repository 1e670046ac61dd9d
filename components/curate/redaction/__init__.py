"""Replace personal data and secrets in a conversation by placeholders, ``<EMAIL_1>``.

``of_candidate`` is the way in, ``settings`` what a workload may say, ``kinds`` what there is.
``redactor`` sees in one pass which patterns a conversation is worth; ``leaves`` finds its texts;
``reading`` asks of each what its field is called (``fields``), then ``secrets``, ``contact``,
``numbers`` (with ``checksums``) and ``addresses``, then the names that the conversation itself
tells (``names``); ``ledger`` gives equal values equal numbers.
"""
