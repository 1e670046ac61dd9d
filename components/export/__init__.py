"""What leaves the house: adapters that anybody's PEFT loads, and what other servers want of them.

``portable`` names the base and copies a finished adapter, ``card`` says what it is (``measured``
finds its scores, ``licence`` what the base's folder says); ``merged`` puts it into the base's
weights, ``plain`` tells which adapters servers of plain LoRA can take, ``nim`` and ``gguf_lora``
write what NIM and llama.cpp read.
"""
