"""Measure models with lm-eval: ``harness`` runs ``task``, the holdout, and each ``guard``.

``task`` is scored by our ``metric``. For the guards, ``definition`` finds lm-eval's tasks,
``guards`` looks over a workload's, ``guard`` makes one ready and ``answered`` asks it. ``built_in``
has tasks of our own: ``preferred`` asks for what people chose, ``remembered`` for canaries,
``leaked`` for secrets that redaction let stay, ``refusals`` what should be refused. ``logged`` has
what production answered, and ``judging`` a large model that compares texts.

``engines`` compute the answers: ``transformers_engine`` anywhere, ``vllm_engine`` where that is
installed, within ``vllm_limits``; ``applied`` sees that an adapter is really put on, and
``generation`` says how an answer is written.

``answerer`` is the model of transformers as lm-eval sees it: it has one ``reading`` a tree of
``prefixes``, for the likelihoods of ``choices`` and for ``greedy`` answers, which are written in
``slots``. On a CPU its weights are ``blocked``, and ``threads`` says how many compute.
"""
