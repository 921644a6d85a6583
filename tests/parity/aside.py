"""What `explain` and `selftest` leave beside a target, for tests of the dossier that takes it up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

EDGE = "edge-x86-openvino-fp32"


def lay(root: Path, what: str, document: dict[str, Any], *, stale: bool = False) -> None:
    """What another verb leaves beside a target, with the record of the inputs it was made of."""
    folder = root / "out" / "tiny" / "targets" / EDGE
    digests = json.loads((folder / "verdict" / "verdict.json").read_text())["digests"]
    (folder / what).mkdir()
    (folder / what / f"{what}.json").write_text(json.dumps(document))
    inputs = {"artifact": "of old" if stale else digests["artifact"], "policy": digests["policy"]}
    record = {"step": what, "inputs": inputs, "read": {}, "outputs": {}, "because": []}
    (folder / what / "step.json").write_text(json.dumps(record))


EXPLAINED = {
    "cause": "fusion", "explained": True, "sentence": "A fused kernel rounds once less.", "step": "runtime",
    "second": {"cause": "quantization", "sentence": "One range is narrow.", "remedy": None},
    "rungs": [
        {"name": "export", "status": "holds", "why": "", "agreement": {"disagree": 0, "n": 600}, "sqnr_db": 120.0, "broke": 0},
        {"name": "runtime", "status": "skipped", "why": "float", "agreement": None, "sqnr_db": None, "broke": None},
    ],
    "first": None, "worst": {"module": "0", "op": "Gemm", "sqnr_db": 100.0},
    "tensors": [{"module": "0", "op": "Gemm", "sqnr_db": 100.0, "local_sqnr_db": 101.0}], "flips": [],
    "reproduce": "lockstep explain tiny", "suggestion": {"text": "nothing to do"},
}  # fmt: skip
TESTED = {
    "planted": 3, "must_catch": 2, "caught": 1, "benign": 1, "false_alarms": 0,
    "rows": [
        {"kind": "scale", "place": "graph", "seed": 0, "size": 0.05, "oracle": "grey zone", "caught_by": None},
        {"kind": "scale", "place": "graph", "seed": 0, "size": 0.2, "oracle": "must catch", "caught_by": "statistics"},
        {"kind": "scale", "place": "graph", "seed": 1, "size": 0.2, "oracle": "must catch", "caught_by": None},
        {"kind": "same", "place": "benign", "seed": 0, "size": 0.0, "oracle": "harmless", "caught_by": None},
    ],
    "fixed_tolerances": {"1e-5": {"caught": 2, "of": 2, "false_alarms": 1, "benign": 1}},
}  # fmt: skip
