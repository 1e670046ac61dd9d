import random
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa

from components.curate.near import candidate_pairs, hashed_words, kept_prefixes
from components.curate.near.candidate_pairs import Groups
from components.curate.near.hashed_words import DigestedWords
from components.curate.near.kept_arrays import KeptArrays
from components.curate.near.kept_prefixes import KeptPrefixes

WORDS = [f"{first}{second}" for first in "abcdefghij" for second in "klmnop"]


def test_texts_that_come_and_go_leave_the_prefixes_that_all_have_now():
    chance = random.Random(0)
    kept = KeptPrefixes(KeptArrays(None, ""), "nights")
    # With a crowd, groups are those of all texts.
    crowd = [f"{' '.join(WORDS[:20])} {number}" for number in range(2 * candidate_pairs.CROWD)]
    often = [" ".join(chance.choices(WORDS, k=12)) for _ in range(40)]
    texts = [f"{' '.join(chance.choices(WORDS, k=20))} {chance.choice(often)}" for _ in range(900)]
    for gone, came in [(0, 500), (0, 520), (20, 520), (40, 520), (40, 520), (30, 530), (0, 900)]:
        night = sorted({*texts[gone:came], *crowd})
        earlier, anew = group(night, kept), group(night, None)
        assert earlier.have_crowds
        for name in ("texts", "sizes", "own", "crowds", "shared"):
            assert np.array_equal(getattr(earlier, name), getattr(anew, name)), name


def group(texts: list[str], kept: KeptPrefixes | None) -> Groups:
    words = DigestedWords.of(hashed_words.column_of(pa.array(texts, pa.large_string())))
    with ThreadPoolExecutor(2) as pool:
        return kept_prefixes.group_texts(words, 0.8, kept, pool)
