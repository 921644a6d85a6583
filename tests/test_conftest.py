"""What tests share does not make one test depend on another."""

from __future__ import annotations

import numpy as np
import pytest

RNG = np.random.default_rng(5)
FIRST = RNG.random()
NEXT = np.random.default_rng(5).random(2)[1]


@pytest.mark.parametrize("_run", range(3))
def test_a_generator_of_a_module_starts_each_test_where_the_import_left_it(_run: int) -> None:
    assert RNG.random() == NEXT
