"""The user's own `postprocess`: what it gives is compared, and what it raises is told where no law is broken."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compile.errors import ConfigError
from parity.verdict import Status
from tests.parity.judged import BATCH, LIMITS, MODEL, Case, batches, broken, status


def test_postprocess_gives_the_answers_that_are_compared(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The user's function says that 0 and 1 are one class, 2 and 3 another; a swap within a pair is then no difference."""
    (tmp_path / "judged_pairs.py").write_text("def pairs(outputs):\n    return outputs['logits'].argmax(1) // 2\n")
    monkeypatch.syspath_prepend(tmp_path)
    case.candidate = batches(np.concatenate([b["logits"][:, [1, 0, 3, 2]] for b in case.candidate]))
    case.columns["labels"] = case.columns["labels"] // 2
    case.limits = [limit for limit in LIMITS if limit["metric"] != "float_error"]
    plain = replace(case, root=tmp_path / "plain").examine()
    assert status(plain) is Status.FAIL
    case.model = {**MODEL, "task": {"kind": "classification", "postprocess": "judged_pairs:pairs"}}
    assert status(case.examine()) is Status.PASS


CODE = """
import numpy as np
seen = []
def sure(outputs):
    seen.append(len(outputs['logits']))
    spread = np.ptp(outputs['logits'], axis=1)
    if not spread.all() or not np.isfinite(spread).all():
        raise ValueError('nothing to choose from')
    return outputs['logits']
"""


@pytest.mark.parametrize(
    ("law", "value", "where"),
    [("finite", np.nan, (3, 2)), ("not constant", 0.25, ...)],
    ids=["nan", "one number throughout"],
)
def test_a_broken_law_is_told_instead_of_what_the_users_code_makes_of_it(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, law: str, value: float, where: Any
) -> None:
    """The user's code sees batches as they were observed, and none of those that are known to break a law."""
    (tmp_path / "judged_sure.py").write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "judged_sure", raising=False)
    case.model = {**MODEL, "task": {"kind": "classification", "postprocess": "judged_sure:sure"}}
    for batch in case.candidate:
        batch["logits"][where] = value
    assert list(broken(case.examine())) == [f"{law} against source"]
    assert set(sys.modules["judged_sure"].seen) <= {BATCH}


def test_what_the_users_code_raises_is_told_where_no_law_is_broken(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "judged_never.py").write_text("def never(outputs):\n    raise ValueError('not today')\n")
    monkeypatch.syspath_prepend(tmp_path)
    case.model = {**MODEL, "task": {"kind": "classification", "postprocess": "judged_never:never"}}
    with pytest.raises(ConfigError, match="not today"):
        case.examine()


def test_answers_that_are_not_one_a_row_are_refused(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An output with steps before rows, or code that takes rows apart: every step would count as a row that was seen."""
    (tmp_path / "judged_apart.py").write_text("def apart(outputs):\n    return outputs['logits'].reshape(-1, 2)\n")
    monkeypatch.syspath_prepend(tmp_path)
    del case.columns["labels"]
    case.limits = [limit for limit in LIMITS if limit["metric"] != "correct"]
    assert status(replace(case, root=tmp_path / "plain").examine()) is Status.PASS
    case.model = {**MODEL, "task": {"kind": "classification", "postprocess": "judged_apart:apart"}}
    with pytest.raises(
        ConfigError, match=r"`task.postprocess` \(judged_apart:apart\) gives 2,000 answers for 1,000 rows"
    ):
        case.examine()
