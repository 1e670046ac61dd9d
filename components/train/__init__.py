"""Train a QLoRA adapter on a snapshot.

``recipe`` holds the knobs, ``examples`` turns rows into tokens and batches, ``adapter`` is what is
put on the base, ``completion`` is the trainer, ``fit`` the run from snapshot to adapter, with
``checkpoints`` in between.
"""
