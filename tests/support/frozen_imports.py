"""Imported last where processes are forked from: their garbage collector passes over the rest."""

import gc

gc.collect()
gc.freeze()
