"""How models answer fast on a CPU: what prompts begin with is read once; for ``prefix_engine``.

| | |
|---|---|
| `tree.py` | rows of tokens as one tree |
| `forward.py` | a model reads a tree, pack by pack |
| `choices.py` | how likely continuations are |
| `generate.py` | greedy answers in one continuous batch |
| `weights.py` | weights in blocks, and as many threads as are fastest |
"""
