"""Replace personal data and secrets in a conversation by surrogates, or by ``<EMAIL_1>``.

``of_candidate`` and ``of_exchange`` are the ways in, ``settings`` is what a workload may say,
``kinds`` what there is. ``redactor`` finds a conversation's texts with ``leaves`` and asks
``gates`` in one pass which patterns they are worth. ``reading`` asks of each what its field is
called (``fields``), then ``secrets``, ``contact``, ``numbers`` (with ``checksums``) and
``addresses``, each a table of ``pattern``s, then the names that the conversation itself tells
(``names``, with ``words`` that are none), and ``presidio`` where a workload wants it. ``allowed``
is what stays, ``staying`` finds it in answers, and ``ledger`` gives equal values equal numbers.

``surrogates`` draws made-up values of the same form by ``chance``, names from ``person_names``;
``stand_ins`` gives each value of a conversation one, and ``keyring`` holds the conversations' keys.
"""
