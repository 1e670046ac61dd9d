"""Find near-duplicates and overlaps: exactly, by a verified Jaccard similarity.

Texts are compared as hashed_words. Curation reads request_columns, separates request_words from
what many share and places near_requests; duplicates clusters any texts: shingles hashes them,
prefixes chooses the rarest, candidate_pairs pairs texts that share some. shared_text finds
templates by word_runs, changed_runs where these changed since the last curation, and nearest_texts
compares with tested texts. comparison_cache leaves to the next curation what it would find again:
kept_words, kept_prefixes, kept_pairs, in kept_arrays.
"""
