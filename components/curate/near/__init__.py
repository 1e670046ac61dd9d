"""Find near-duplicates and overlaps: exactly, by a verified Jaccard similarity.

near_requests is curation's entry point, duplicates clusters any texts: shingles hashes them,
candidate_pairs pairs those that share a prefix hash. shared_text removes templates.
"""
