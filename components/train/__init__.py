"""Train an adapter on a snapshot.

``recipe`` holds the knobs, ``combinations`` says which of them don't go together, ``examples``
turns rows into tokens. ``adapter`` puts on the base what is trained: ``starts`` and ``eva`` give
its first weights, ``ranks`` shares out those of AdaLoRA, ``whole`` copies modules that are trained
in full, ``warm`` says whether it can go on from an earlier one. ``completion`` is the trainer, with
``objectives``; ``fit`` the run from snapshot to adapter, with ``checkpoints`` in between.
"""
