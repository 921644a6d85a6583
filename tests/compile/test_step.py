"""Steps: the same inputs never run twice, anything else always does, and a crash leaves nothing half-made."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from compile import digest
from compile.step import Step, changes, commit, read_record, replace


def made(tmp_path: Path, text: str = "result") -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "file.txt").write_text(text)
    return folder


def a_step(tmp_path: Path, **inputs: str) -> Step:
    return Step("s", tmp_path / "s", inputs or {"weights": "aa"})


def test_an_unbuilt_step_runs_and_a_built_one_does_not(tmp_path: Path) -> None:
    step = a_step(tmp_path)
    assert changes(step, tmp_path) == ["not built yet"]
    commit(step, made(tmp_path), read={}, because=[])
    assert changes(step, tmp_path) == []


def test_changed_added_and_removed_inputs_are_named(tmp_path: Path) -> None:
    commit(a_step(tmp_path, weights="aa", old="cc"), made(tmp_path), read={}, because=[])
    reasons = changes(a_step(tmp_path, weights="bb", new="dd"), tmp_path)
    assert reasons == ["weights: aa -> bb", "new: nothing -> dd", "old: no longer an input"]


def test_a_file_that_user_code_read_makes_the_step_run_when_it_changes(tmp_path: Path) -> None:
    code = tmp_path / "model.py"
    code.write_text("one")
    commit(a_step(tmp_path), made(tmp_path), read={"model.py": digest.of_file(code)}, because=[])
    assert changes(a_step(tmp_path), tmp_path) == []
    code.write_text("two")
    assert "model.py: changed" in changes(a_step(tmp_path), tmp_path)[0]
    code.unlink()
    assert "-> nothing" in changes(a_step(tmp_path), tmp_path)[0]


def test_one_flipped_byte_in_the_result_makes_the_step_run(tmp_path: Path) -> None:
    commit(a_step(tmp_path), made(tmp_path), read={}, because=[])
    (tmp_path / "s" / "file.txt").write_text("resulT")
    assert "file.txt: the built file changed or is gone" in changes(a_step(tmp_path), tmp_path)[0]


def test_a_damaged_record_counts_as_not_built(tmp_path: Path) -> None:
    commit(a_step(tmp_path), made(tmp_path), read={}, because=[])
    record = tmp_path / "s" / "step.json"
    record.write_text(record.read_text()[:20])
    assert read_record(tmp_path / "s") is None
    assert changes(a_step(tmp_path), tmp_path) == ["not built yet"]


def test_replace_puts_the_new_folder_and_nothing_of_the_old(tmp_path: Path) -> None:
    old = tmp_path / "s"
    old.mkdir()
    (old / "stale.txt").write_text("stale")
    replace(made(tmp_path), old)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["s"]
    assert [p.name for p in old.iterdir()] == ["file.txt"]


documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(documents)
def test_canonical_json_reads_back_and_spells_one_way(document: object) -> None:
    import json

    data = digest.canonical_json(document)
    assert json.loads(data) == document
    assert digest.canonical_json(json.loads(data)) == data


@given(st.dictionaries(st.text("abc", min_size=1), st.text("0f", min_size=4, max_size=4), min_size=1))
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_tree_digest_ignores_order_and_hears_every_byte(files: dict[str, str]) -> None:
    shuffled = dict(reversed(files.items()))
    assert digest.of_tree(shuffled) == digest.of_tree(files)
    name = next(iter(files))
    assert digest.of_tree({**files, name: files[name] + "0"}) != digest.of_tree(files)


def test_canonical_json_refuses_nan() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        digest.canonical_json({"x": float("nan")})
