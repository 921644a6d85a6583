"""Laws that a candidate's outputs may break: each fails the verdict by its name, and nothing else does."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from compile.config import ModelFile
from compile.errors import ConfigError
from parity.laws import broken_laws
from parity.observed import read_observed
from parity.verdict import Status
from tests.parity.judged import BATCH, ROWS, Case, broken, status

Change = Callable[[Case], object]


def set_value(value: float) -> Change:
    return lambda case: case.candidate[1]["logits"].__setitem__((3, 2), value)


def set_output(make: Callable[[np.ndarray], np.ndarray]) -> Change:
    return lambda case: case.candidate[2].update(logits=make(case.candidate[2]["logits"]))


def set_all(make: Callable[[np.ndarray], np.ndarray]) -> Change:
    return lambda case: [batch.update(logits=make(batch["logits"])) for batch in case.candidate]


LAWS: dict[str, tuple[Change, str]] = {
    "nan": (set_value(np.nan), "finite"),
    "positive infinity": (set_value(np.inf), "finite"),
    "negative infinity": (set_value(-np.inf), "finite"),
    "nan in the source": (lambda case: case.source[0]["logits"].__setitem__((0, 0), np.nan), "finite"),
    "a column less": (set_output(lambda a: a[:, :3]), "schema"),
    "an axis more": (set_output(lambda a: a[None]), "schema"),
    "a row less": (set_output(lambda a: a[:-1]), "schema"),
    "a wider dtype": (set_output(lambda a: a.astype(np.float64)), "schema"),
    "a narrower dtype": (set_output(lambda a: a.astype(np.float16)), "schema"),
    "no such output": (lambda case: case.candidate[0].pop("logits"), "schema"),
    "another name": (lambda case: case.candidate[0].update(out=case.candidate[0].pop("logits")), "schema"),
    "a batch less": (lambda case: case.candidate.pop(), "schema"),
    "a batch more": (lambda case: case.candidate.append(case.candidate[0]), "schema"),
    "nothing observed": (lambda case: case.candidate.clear(), "schema"),
    "one number throughout": (set_all(lambda a: np.full_like(a, 0.25)), "not constant"),
    "one row throughout": (set_all(lambda a: np.tile(np.float32([1, 2, 3, 4]), (len(a), 1))), "not constant"),
}


@pytest.mark.parametrize("name", LAWS)
def test_a_broken_law_fails_the_verdict(case: Case, name: str) -> None:
    change, law = LAWS[name]
    change(case)
    findings = case.examine()
    assert status(findings) is Status.FAIL
    assert list(broken(findings)) == [f"{law} against source"]


def test_nan_is_named_by_its_row_in_the_data_and_with_how_many_rows_have_such(case: Case) -> None:
    """Answers stand in another order than the data: of a model with state, streams run side by side."""
    case.columns |= {"row": np.arange(ROWS)[::-1], "id": np.array([f"take-{i}" for i in range(ROWS)])}
    case.candidate[1]["logits"][3, :2] = case.candidate[2]["logits"][5, 0] = np.nan
    said = broken(case.examine())["finite against source"]
    assert said == f"finite: `logits` holds NaN or infinity in 2 of 1,000 rows, the first `take-{ROWS - 1 - 253}`"


@pytest.mark.parametrize("rows", [None, 0])
def test_an_empty_suite_fails(case: Case, rows: int | None) -> None:
    """No batch at all, and batches without a row: nothing was judged."""
    for side in ("source", "candidate", "baseline"):
        setattr(case, side, [] if rows is None else [{"logits": np.zeros((0, 4), np.float32)}])
    findings = case.examine()
    assert status(findings) is Status.FAIL
    assert "empty" in broken(findings)["schema against source"]


def test_an_output_may_be_constant_where_the_source_is_too_but_its_answer_may_not(case: Case) -> None:
    """No law is broken; yet where every row is answered alike no other answer could be seen."""
    for side in (case.source, case.candidate, case.baseline):
        assert side is not None
        for batch in side:
            batch["logits"] = np.tile(np.float32([1, 2, 3, 4]), (BATCH, 1))
    case.columns["labels"] = np.full(ROWS, 3)
    with pytest.raises(ConfigError, match="gives the same answer in all of its 1,000 rows"):
        case.examine()
    config = ModelFile.model_validate(case.model)
    source, candidate = (read_observed(case.root / side, config) for side in ("source", "observation"))
    assert source.names
    assert not any(breaches for _, breaches in broken_laws(source, candidate))
