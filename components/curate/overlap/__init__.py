"""Keep out of training what is tested on: the workload's holdout, and the documents of guard tasks.

``decontaminate`` is the way in and holds the settings; ``ngrams`` finds texts that have much of
another in them, word for word, ``paraphrases`` those that say the same in other words, and
``documents`` reads what guard tasks test on.
"""
