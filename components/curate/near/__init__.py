"""Find near-duplicates and overlaps: exactly, by a verified Jaccard similarity.

Texts are compared as hashed_words. Curation reads request_columns, separates request_words from
what many share and places near_requests; duplicates clusters any texts: shingles hashes them,
prefixes chooses the rarest, candidate_pairs pairs texts that share some. shared_text finds
templates by word_runs in text_words, each text's words once; nearest_texts compares with tested
texts.
"""
