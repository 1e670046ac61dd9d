"""Train a QLoRA adapter on a snapshot.

``recipe`` holds the knobs, ``examples`` turns rows into tokens and batches, ``completion`` is the
trainer, ``fit`` the run from snapshot to adapter, with checkpoints in between.
"""
