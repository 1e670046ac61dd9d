from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa

from components.curate.near import cosines, hashed_words


def test_texts_without_words_are_no_paraphrases():
    texts, empty = (
        hashed_words.column_of(pa.array(written, pa.large_string()))
        for written in (["the quick brown fox", ""], ["", ""])
    )
    with ThreadPoolExecutor(2) as pool:
        near = cosines.nearest_by_cosine(texts, empty, pool)
    assert near.references.tolist() == [-1, -1]
    assert near.shares.tolist() == [0, 0]
