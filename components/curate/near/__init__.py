"""Find near-duplicates and overlaps: exactly, by a verified Jaccard similarity.

Texts are compared as hashed_words. near_requests is curation's entry point, duplicates clusters any
texts: shingles hashes them, prefixes chooses the rarest, candidate_pairs pairs texts that share
some. shared_text removes templates by word_runs, changed_runs finds where these changed since the
last curation, and nearest_texts compares with tested texts. comparison_cache leaves to the next
curation what it would find again: kept_words, kept_prefixes, kept_pairs, in kept_arrays.
"""
