"""Metrics of the task against scikit-learn, scipy and jiwer: at weights of one, and at weights as repeated rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jiwer
import numpy as np
import pytest
from scipy.stats import entropy, spearmanr
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score
from sklearn.neighbors import NearestNeighbors

from compile.config import TaskConfig
from compile.errors import ConfigError
from parity import detection, measure, neighbours, quality
from parity.answers import agree
from parity.kinds import codes
from parity.limit import KINDS, Limit
from parity.neighbours import gallery_of
from parity.rows import Rows, of_answers, of_scores
from parity.statistics.bounds import bounds
from parity.statistics.resampling import Counts, Figure, Sums, Weighted, summed
from parity.verdict import Measured, Status, decide

N = 400
RNG = np.random.default_rng(7)


def rows(kind: str, reference: Any, candidate: Any, labels: Any = None, groups: Any = None, **task: Any) -> Rows:
    config = TaskConfig.model_validate({"kind": kind, **task})
    facts = of_answers(config, reference, candidate)
    columns = {} if labels is None else {"labels": np.asarray(labels)}
    grouped = None if groups is None else codes(groups)
    return Rows(config, reference, candidate, agree(config, reference, candidate), facts, columns, grouped, 0)


def looked_up(one: np.ndarray, other: np.ndarray, labels: Any, k: int) -> Rows:
    """Embeddings as the judge keeps them: which rows of the reference's gallery are nearest."""
    gallery = gallery_of([one], np.ones(len(one), bool))
    found = [gallery.nearest(side, 0, k) for side in (one, other)]
    config = TaskConfig.model_validate({"kind": "embedding"})
    return Rows(config, found[0], found[1], found[0][:, 0] == found[1][:, 0], {}, {"labels": labels}, None, 0)


def limit(metric: str, **more: Any) -> Limit:
    bound = {KINDS[metric].bounds[0]: 0.1}  # type: ignore[index]
    return Limit.model_validate({"metric": metric, "why": "a limit for a test", **bound, **more})


def sides(figure: Figure, weights: np.ndarray) -> list[float]:
    """The reference's value and the candidate's, for one set of weights."""
    one, twice = figure.of(weights[None].astype(float)), figure.of(np.stack([weights, weights]).astype(float))
    assert twice[1] == pytest.approx(one[0], nan_ok=True)
    return list(np.asarray(figure.of(weights[None].astype(float))[0]).tolist())


def holds(of: quality.Quality, wanted: Callable[[int, np.ndarray], float], n: int = N) -> None:
    """Each side equals `wanted(side, rows)`, for the rows as they are and for a resample of them."""
    drawn = RNG.integers(0, n, n)
    for weights, taken in ((np.ones(n), np.arange(n)), (np.bincount(drawn, minlength=n), drawn)):
        assert sides(of.figure, weights) == pytest.approx([wanted(0, taken), wanted(1, taken)], abs=1e-9)


def test_macro_f1_is_scikit_learns() -> None:
    labels, one, other = RNG.integers(0, 5, N), RNG.integers(0, 6, N), RNG.integers(0, 6, N)
    found = quality.macro_f1(rows("classification", one, other, labels), limit("macro_f1"))
    pair = (one, other)
    holds(found, lambda side, t: f1_score(labels[t], pair[side][t], labels=np.unique(labels), average="macro"))
    assert (found.differs == (one != other)).all()


def test_f1_is_scikit_learns_at_the_threshold() -> None:
    labels, one, other = RNG.integers(0, 2, N), RNG.random(N), RNG.random(N)
    found = quality.f1(rows("binary_score", one, other, labels, threshold=0.4), limit("f1"))
    holds(found, lambda side, t: f1_score(labels[t], (one, other)[side][t] >= 0.4))


def test_auc_is_scikit_learns_with_ties() -> None:
    labels = RNG.integers(0, 2, N)
    one, other = np.round(RNG.random(N), 1), RNG.random(N)
    found = quality.auc(rows("binary_score", one, other, labels), limit("auc"))
    holds(found, lambda side, t: roc_auc_score(labels[t], (one, other)[side][t]))


def test_auc_of_one_kind_of_label_is_no_number() -> None:
    found = quality.auc(rows("binary_score", RNG.random(N), RNG.random(N), np.zeros(N, int)), limit("auc"))
    assert np.isnan(sides(found.figure, np.ones(N))).all()


WORDS = np.array(["the pump failed", "a pump fails", "pumps fail at night", "the night pump"])


@pytest.mark.parametrize(
    ("metric", "of"), [("word_errors", jiwer.wer), ("character_errors", jiwer.cer)], ids=["words", "characters"]
)
def test_errors_in_text_are_jiwers(metric: str, of: Callable[[list[str], list[str]], float]) -> None:
    labels, one, other = (WORDS[RNG.integers(0, 4, N)] for _ in range(3))
    found = quality.QUALITIES[metric](rows("sequence", one, other, labels), limit(metric))  # type: ignore[index]
    assert found.errors
    holds(found, lambda side, t: of(labels[t].tolist(), (one, other)[side][t].tolist()))


def test_symbols_are_edited_without_their_padding() -> None:
    """By hand: 1 2 3 to 1 3 is one edit, to 1 2 3 4 one, of three symbols."""
    labels, one, other = np.array([[1, 2, 3, -1]]), np.array([[1, 3, -1, -1]]), np.array([[1, 2, 3, 4]])
    found = quality.character_errors(rows("sequence", one, other, labels), limit("character_errors"))
    assert sides(found.figure, np.ones(1)) == pytest.approx([1 / 3, 1 / 3])


def test_mean_error_is_the_mean_of_absolute_differences() -> None:
    labels, one, other = (RNG.standard_normal((N, 2)) for _ in range(3))
    found = quality.mean_error(rows("regression", one, other, labels), limit("mean_error"))
    holds(found, lambda side, t: float(np.abs((one, other)[side][t] - labels[t]).mean()))


def test_recall_and_overlap_of_neighbours_are_scikit_learns() -> None:
    one = RNG.standard_normal((N, 6))
    other = one + 0.3 * RNG.standard_normal((N, 6))
    labels = RNG.integers(0, 40, N)
    found = quality.recall_at_k(looked_up(one, other, labels, 5), limit("recall_at_k", k=3))
    search = NearestNeighbors(n_neighbors=N, metric="cosine", algorithm="brute").fit(one)
    near = [
        np.array([[j for j in order if j != i][:3] for i, order in enumerate(search.kneighbors(side)[1])])
        for side in (one, other)
    ]
    assert sides(found.figure, np.ones(N)) == pytest.approx(
        [float((labels[n] == labels[:, None]).any(axis=1).mean()) for n in near]
    )
    shared = quality.rank_overlap(looked_up(one, other, labels, 5), limit("rank_overlap", k=3))
    wanted = np.mean([len(set(a) & set(b)) / 3 for a, b in zip(*near, strict=True)])
    assert shared.figure.of(np.ones((1, N)))[0] == pytest.approx(wanted)


def test_rank_correlation_is_scipys_and_of_equal_scores_is_one() -> None:
    one, other = np.round(RNG.random(N), 2), RNG.random(N)
    found = quality.rank_correlation(rows("binary_score", one, other), limit("rank_correlation"))
    assert found.figure.of(np.ones((1, N)))[0] == pytest.approx(spearmanr(one, other).statistic, abs=1e-9)
    same = quality.rank_correlation(rows("binary_score", other, other), limit("rank_correlation"))
    assert same.figure.of(np.ones((1, N)))[0] == pytest.approx(1)


def test_kl_is_scipys_entropy_and_probabilities_stay_what_they_are() -> None:
    one, other = RNG.dirichlet(np.ones(5), N), RNG.dirichlet(np.ones(5), N)
    wanted = entropy(one, other, axis=1)
    for a, b in ((one, other), (np.log(one), np.log(other) + 3)):
        found = of_scores("classification", a, b)
        assert found["kl"] == pytest.approx(wanted, rel=1e-6, abs=1e-9)
        assert found["confidence"] == pytest.approx(one.max(axis=1))
        assert found["shift"] == pytest.approx(other.max(axis=1) - one.max(axis=1))


def test_cosine_is_one_for_a_scaled_row_and_for_two_rows_of_nothing() -> None:
    one = np.array([[1.0, 2], [0, 0], [1, 0], [0, 0]])
    other = np.array([[2.0, 4], [0, 0], [0, 1], [1, 1]])
    facts = of_answers(TaskConfig.model_validate({"kind": "embedding"}), one, other)
    assert facts["cosine"] == pytest.approx([1, 1, 0, 0])


def test_state_that_drifts_is_seen_and_a_constant_offset_is_not() -> None:
    groups, time = np.repeat(np.arange(30), 10), np.tile(np.arange(10), 30)
    scores = RNG.random(300)
    drifting = quality.state_drift(
        rows("binary_score", scores, scores + 0.01 * time, groups=groups), limit("state_drift")
    )
    assert drifting.figure.of(np.ones((1, 300)))[0] == pytest.approx(0.01 * (7 - 2))
    constant = quality.state_drift(rows("binary_score", scores, scores + 0.1, groups=groups), limit("state_drift"))
    assert constant.figure.of(np.ones((1, 300)))[0] == pytest.approx(0)
    with pytest.raises(ConfigError, match="needs streams"):
        quality.state_drift(rows("binary_score", scores, scores), limit("state_drift"))


@pytest.mark.parametrize("lengths", [(10, 10, 10), (25, 25, 25), (1, 2, 9, 30)])
def test_a_stream_that_drifts_wholly_moves_the_drift_by_no_more_than_its_worst(lengths: tuple[int, ...]) -> None:
    """One stream at a time is apart by 1 in one of its halves, found here by index; the heaviest of them is the worst."""
    groups, scores = np.repeat(np.arange(len(lengths)), lengths), np.zeros(sum(lengths))
    place = np.concatenate([np.arange(n) >= n // 2 for n in lengths])
    weights = []
    for stream, length in enumerate(lengths):
        for half in (place, ~place):
            apart = np.where((groups == stream) & half, 1.0, 0.0)
            found = quality.state_drift(rows("binary_score", scores, apart, groups=groups), limit("state_drift"))
            assert found.differs[groups == stream].all() == bool(apart.any())
            assert not found.differs[groups != stream].any()
            moved = abs(found.figure.of(np.ones((1, len(scores))))[0])
            weights.append(moved / (length / len(scores)))
    assert found.worst == pytest.approx(max(weights))


@pytest.mark.parametrize("shares", [(1, 1, 1, 1), (40, 10, 4, 1), (1, 60)])
@pytest.mark.parametrize("k", [1, 3, 8])
@pytest.mark.parametrize("errors", [0.0, 0.3])
def test_no_few_rows_cost_an_f1_more_than_the_worst(shares: tuple[int, ...], k: int, errors: float) -> None:
    """Rows changed from every class to every other, and from the worst of them to the nearest: none costs more, and it is not
    far from what the dearest does."""
    random, n, many = np.random.default_rng(k), 600, len(shares)
    labels = random.choice(many, n, p=np.array(shares) / sum(shares))
    told = np.where(random.random(n) < errors, random.integers(0, many, n), labels)
    wanted = {"macro_f1": labels, "f1": (labels == 0).astype(int)}
    for metric, truth in wanted.items():
        kind = "classification" if metric == "macro_f1" else "binary_score"
        given = told if metric == "macro_f1" else (told == 0).astype(float)
        dearest = 0.0
        for of in np.unique(given):
            for to in np.unique(given)[np.unique(given) != of]:
                for right in (True, False):
                    changed = given.copy()
                    changed[np.flatnonzero((given == of) & ((given == truth) == right))[:k]] = to
                    for pair in ((given, changed), (changed, given)):
                        found = quality.QUALITIES[metric](rows(kind, *pair, truth), limit(metric))
                        value = np.ptp(sides(found.figure, np.ones(n)))
                        assert value <= found.worst * found.differs.mean() + 1e-12
                        dearest = max(dearest, value / max(found.worst * found.differs.mean(), 1e-12))
        assert dearest > 0.3


def boxes(*found: tuple[float, float, float, float, float, int]) -> np.ndarray:
    return np.array(found, float).reshape(1, -1, 6)


def test_overlap_of_boxes_by_hand() -> None:
    """Two squares of side 2, moved by 1: 2 shared of 6."""
    one, other = np.array([[0.0, 0, 2, 2]]), np.array([[1.0, 0, 3, 2], [4, 4, 5, 5], [0, 0, 2, 2]])
    assert detection.overlaps(one, other).tolist() == [pytest.approx([2 / 6, 0, 1])]


def test_objects_are_alike_where_class_and_place_are() -> None:
    one = boxes((0, 0, 10, 10, 0.9, 1), (20, 20, 30, 30, 0.8, 2))
    moved = boxes((20, 21, 30, 31, 0.7, 2), (0, 0, 10, 10, 0.6, 1), (50, 50, 60, 60, 0.2, 1))
    assert detection.alike(one, moved, 0.5).tolist() == [True]
    assert detection.alike(one, moved, 0.1).tolist() == [False]
    assert detection.alike(one, boxes((0, 0, 10, 10, 0.9, 2), (20, 20, 30, 30, 0.8, 2)), 0.5).tolist() == [False]
    assert detection.alike(one, boxes((0, 0, 10, 10, 0.9, 1), (0, 0, 10, 10, 0.9, 1)), 0.5).tolist() == [False]


def test_average_precision_is_scikit_learns_where_every_object_is_found() -> None:
    n = 60
    labels = np.tile(np.array([0.0, 0, 10, 10, 0]), (n, 1, 1))
    scores, shift = RNG.random((n, 2)), np.where(RNG.random((n, 2)) < 0.6, 0, 40)
    answers = np.zeros((n, 2, 6))
    answers[..., 0], answers[..., 2], answers[..., 3] = shift, shift + 10, 10
    answers[..., 4] = scores
    answers[:, 1, 0], answers[:, 1, 2] = 40, 50  # the second box of each row meets nothing
    found = detection.mean_average_precision(labels, answers)(np.ones((1, n)))[0]
    hit = np.concatenate([shift[:, 0] == 0, np.zeros(n, bool)])
    ranked = average_precision_score(hit, np.concatenate([scores[:, 0], scores[:, 1]]))
    assert found == pytest.approx(ranked * hit.sum() / n)  # scikit-learn knows only of the objects that were found


def seen(labels: np.ndarray, spare: int = 0) -> np.ndarray:
    """A detector that finds every object at a score of 0.6, with room for other boxes."""
    found = np.pad(detection.labelled(labels), ((0, 0), (0, spare), (0, 0)))
    found[..., detection.SCORE] *= 0.6
    return found


@pytest.mark.parametrize("weights", [(1, 1, 1), (30, 10, 1)])
@pytest.mark.parametrize("k", [1, 3, 40])
def test_no_few_rows_cost_a_detector_more_than_the_worst(weights: tuple[int, ...], k: int) -> None:
    """What missed objects and false boxes before all others cost, all in one class or spread; and it is not far from that."""
    n, fullest = 400, 4
    random = np.random.default_rng(k)
    labels = np.tile(np.array([0.0, 0, 10, 10, -1]), (n, fullest, 1))
    there = np.arange(fullest) < random.integers(1, fullest + 1, n)[:, None]
    kinds = random.choice(3, (n, fullest), p=np.array(weights) / sum(weights))
    labels[..., 4] = np.where(there, kinds, -1)
    good = seen(labels)
    worst = detection.worst_loss(labels, (good, good), 0.5, k / n)
    losses = []
    for false in (0, 1, 2, None):
        bad = good.copy()
        bad[:k, :, 0], bad[:k, :, 2], bad[:k, :, detection.SCORE] = 90, 99, 0.9
        bad[:k, :, detection.CLASS] = random.integers(0, 3, (k, fullest)) if false is None else false
        values = [float(detection.mean_average_precision(labels, one)(np.ones((1, n)))[0]) for one in (good, bad)]
        losses.append(values[0] - values[1])
    assert worst * k / n / 3 <= max(losses) <= worst * k / n
    assert worst >= detection.worst_loss(labels, (good, good), 0.5, 2 * k / n), (
        "a share of rows costs less where more differ"
    )


def test_a_copy_of_a_detector_passes_where_there_are_rows_enough() -> None:
    for n, status in ((300, Status.INCONCLUSIVE), (3_000, Status.PASS)):
        labels = np.tile(np.array([0.0, 0, 10, 10, 1]), (n, 1, 1))
        labels[::2, :, 4] = 0
        same = rows("detection", seen(labels), seen(labels), labels)
        found = quality.mean_average_precision(same, limit("mean_average_precision"))
        figure = measure.contrast(found, limit("mean_average_precision"))
        interval = bounds(figure, found.differs, found.worst, None, 0.95).interval
        assert decide(Measured(0, interval.low, interval.high, n), "at_least", -0.02) is status


def test_every_metric_that_is_listed_has_its_function() -> None:
    margins = {m for m, kind in KINDS.items() if "margin" in kind.bounds and m not in ("correct", "kept_errors")}
    assert margins == set(quality.QUALITIES)
    assert {m for m, k in KINDS.items() if k.tasks and m not in margins} == {*quality.DISTANCES, "cosine_minimum"}


def test_a_sum_by_kind_is_the_sum_by_row() -> None:
    table = RNG.integers(0, 3, (N, 2)).astype(float)
    found = quality.by_kind(table, lambda sums: sums[..., 0] / sums[..., 1])
    assert isinstance(found, Sums)
    assert len(found.table) <= 9
    assert found.of(np.ones((1, N)))[0] == pytest.approx(table[:, 0].sum() / table[:, 1].sum())


def test_an_area_of_units_is_the_area_of_their_rows() -> None:
    """What units win against each other says as much as the rows themselves, ties and all."""
    labels, unit = RNG.integers(0, 2, N), RNG.integers(0, 30, N)
    one, other = np.round(RNG.random(N), 1), RNG.random(N)
    found = quality.auc(rows("binary_score", one, other, labels), limit("auc")).figure
    assert isinstance(found, Weighted)
    assert found.pooled is not None
    weights = RNG.integers(0, 4, (9, 30)).astype(float)
    assert found.pooled(unit)(weights) == pytest.approx(found.of(weights[:, unit]), abs=1e-12)


def test_counts_of_units_are_the_counts_of_their_rows() -> None:
    unit = RNG.integers(0, 30, N)
    labels, one, other = RNG.integers(0, 5, N), RNG.integers(0, 6, N), RNG.integers(0, 6, N)
    found = quality.macro_f1(rows("classification", one, other, labels), limit("macro_f1")).figure
    assert isinstance(found, Counts)
    weights = RNG.integers(0, 4, (9, 30)).astype(float)
    of_units = found.figure(weights @ summed(found, unit))
    assert of_units == pytest.approx(found.of(weights[:, unit]), abs=1e-12)


def test_a_gallery_is_bounded_and_no_row_is_its_own_neighbour(monkeypatch: pytest.MonkeyPatch) -> None:
    """A third of the rows may be looked up in; the nearest among those is scikit-learn's."""
    monkeypatch.setattr(neighbours, "GALLERY", N // 3)
    one, counts = RNG.standard_normal((N, 6)), RNG.random(N) < 0.9
    gallery = gallery_of(np.split(one, [50, 130, 300]), counts)
    assert len(gallery.rows) == N // 3
    assert counts[gallery.rows].all()
    found = np.concatenate([gallery.nearest(one[at : at + 90], at, 3) for at in range(0, N, 90)])
    search = NearestNeighbors(n_neighbors=4, metric="cosine", algorithm="brute").fit(one[gallery.rows])
    wanted = [
        [row for row in gallery.rows[near] if row != i][:3]
        for i, near in enumerate(search.kneighbors(one, return_distance=False))
    ]
    assert found.tolist() == wanted


@pytest.mark.parametrize("k", [1, 3])
def test_of_rows_that_are_equal_the_earlier_is_nearer_however_answers_come(k: int) -> None:
    """Twenty kinds of sentences, ten times each: the last bit of a product does not decide, nor how rows are batched."""
    kinds = RNG.standard_normal((20, 24)).astype(np.float32)
    of = np.tile(np.arange(20), 10)
    gallery = gallery_of([kinds[of]], np.ones(200, bool))
    asked = kinds[of] + np.float32(1e-3) * RNG.standard_normal((200, 24)).astype(np.float32)
    wanted = [[row for row in np.flatnonzero(of == of[i]).tolist() if row != i][:k] for i in range(200)]
    for size in (1, 7, 64, 200):
        found = [gallery.nearest(asked[at : at + size], at, k) for at in range(0, 200, size)]
        assert np.concatenate(found).tolist() == wanted, size
