"""Train a QLoRA adapter on a snapshot."""
