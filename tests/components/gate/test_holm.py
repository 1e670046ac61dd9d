"""Holm's correction against statsmodels."""

import numpy as np
import pytest
from statsmodels.stats.multitest import multipletests

from components.gate import significance


@pytest.mark.parametrize("seed", range(4))
def test_corrected_p_values_equal_those_of_statsmodels(seed: int):
    rng = np.random.default_rng(seed)
    p_values = [*rng.uniform(0, 0.2, 7), 0.0, 1.0, 0.03, 0.03]
    assert significance.holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1])


def test_one_claim_needs_no_correction():
    assert significance.holm([0.04]) == [0.04]
    assert significance.holm([]) == []
