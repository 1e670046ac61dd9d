import numpy as np

from components.curate.near import word_runs
from components.curate.near.word_runs import RUN, RunBits


def test_texts_with_some_runs_are_found_among_many_runs_and_few_others():
    chance = np.random.default_rng(0)
    words = chance.integers(0, 40, 20_000)
    runs = chance.integers(0, 1 << 48, int(np.maximum(words - RUN + 1, 0).sum()), np.uint64)
    texts = RunBits.of(word_runs.first_bits(runs), words)
    owners = np.repeat(np.arange(len(words)), np.diff(texts.bounds))
    others = chance.integers(0, 1 << 48, 600_000, np.uint64)
    for some in (chance.choice(runs, 3000), chance.choice(runs, 10)):
        having = {*owners[np.isin(runs, some)].tolist()}
        maybe = {*texts.texts_with(np.concatenate([some, others])).tolist()}
        assert having <= maybe
        assert len(maybe - having) < 100
    assert not len(texts.texts_with(np.zeros(0, np.uint64)))
