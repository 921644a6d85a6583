"""Contrast that is cut off at black and white, and blurs, told from the answers; what only looks like it is not called so."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageFilter
from scipy.ndimage import gaussian_filter, uniform_filter

from parity.explain.mistake import contrast
from parity.explain.mistake.hypotheses import Trial, tried
from tests.parity.test_explain_pictures import INFER, LIGHT, NORMALIZED, Change, bench, resized


def fitted(seen: np.ndarray, normalize: Change = NORMALIZED[0]) -> list[Trial]:
    made = bench(normalize(LIGHT), normalize(seen))
    return tried(made, list(contrast.fitted_pictures(made, INFER)))


@pytest.mark.parametrize("normalize", NORMALIZED[:4])
@pytest.mark.parametrize(("contrasted", "added"), [(1.6, 0.0), (1.0, 0.3), (1.8, -0.2)])
def test_contrast_cut_off_at_the_ends_is_told(normalize: Change, contrasted: float, added: float) -> None:
    best = fitted(np.clip(contrasted * (LIGHT - 0.5) + 0.5 + added, 0, 1), normalize)[0]
    assert best.holds
    assert f"with {contrasted:.3g} times the contrast and {added:+.3f} of the brightness" in best.name.replace(
        "-0.000", "+0.000"
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda x: 1 / (1 + np.exp(-10 * (x - 0.5))),
        lambda x: x**1.7,
        lambda x: 1 - x,
        lambda x: np.clip(1.6 * x, 0, 1) + np.random.default_rng(3).normal(0, 0.1, x.shape),
    ],
)
def test_a_curve_or_noise_is_no_contrast(change: Change) -> None:
    assert not any(one.holds for one in fitted(change(LIGHT)))


@pytest.mark.parametrize("spread", [0.5, 0.8, 1.5])
@pytest.mark.parametrize(
    ("mode", "edge"), [("mirror", "mirrored"), ("reflect", "mirrored with its edge"), ("nearest", "held")]
)
def test_a_blur_is_told_with_its_spread(spread: float, mode: str, edge: str) -> None:
    best = fitted(np.stack([gaussian_filter(one, (0, spread, spread), mode=mode) for one in LIGHT]))[0]
    assert best.holds
    assert f"blurred by a bell of {spread:.3g} pixels (its edge {edge})" in best.name


def test_a_mean_over_a_box_is_told_however_the_picture_is_normalized() -> None:
    seen = np.stack([uniform_filter(one, (0, 3, 3), mode="reflect") for one in LIGHT])
    best = fitted(seen, NORMALIZED[3])[0]
    assert best.holds
    assert "by the mean of 3 × 3 pixels" in best.name


def test_another_size_a_median_and_one_way_of_moving_are_no_blur() -> None:
    median = np.stack([np.stack([_median(plane) for plane in one]) for one in LIGHT])
    moved = (LIGHT + np.roll(LIGHT, 1, axis=3)) / 2
    for seen in (resized(LIGHT, "area", "bilinear", (6, 4)), median, moved):
        assert not any(one.holds for one in fitted(seen))


def _median(plane: np.ndarray) -> np.ndarray:
    whole = Image.fromarray((255 * plane).astype(np.uint8)).filter(ImageFilter.MedianFilter(3))
    return np.asarray(whole, float) / 255
