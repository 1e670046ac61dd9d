"""Find near-duplicates: exactly, by a verified Jaccard, in time that grows with the texts.

``requests`` says what of a request is compared and is the way in for curation; ``clusters`` finds
the near-duplicates among any texts: ``shingles`` hashes their words, ``prefixes`` picks the few
hashes that give a near-duplicate away, ``candidates`` pairs the texts that share one, ``jaccard``
computes the rest.
"""
