"""Base models and the devices they run on.

base loads, quantizes, hashes and converts; device describes and chooses hardware; machine counts
usable cores and memory; threads measures how many are fastest; model_signature signs the folder
that is served.
"""
