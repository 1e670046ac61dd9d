"""How small models train fast on a CPU; only ``cpu_engine`` imports it.

| | |
|---|---|
| `attention.py` | attention block by block |
| `kernels.py` | LoRA layers and norms in one step forward and one back |
| `threads.py` | a share of a batch on each thread |
"""
