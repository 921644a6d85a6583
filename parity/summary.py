"""The figures of a verdict that a table shows: agreement and right answers against the source, latency, size, routing."""

from __future__ import annotations

from typing import Any

import numpy as np

from compile.artifact import artifact_bytes
from parity import route
from parity.measure import Scene, latency_ratio
from parity.statistics import estimate

CONFIDENCE = 0.95


def summary(scene: Scene) -> dict[str, Any]:
    """As plain values; what was not measured is None."""
    rows, pair = scene.rows["source"], scene.right("source")
    found = estimate.share(rows.same, rows.groups, CONFIDENCE)(len(rows))
    seconds = scene.timing()
    ratio = latency_ratio(seconds, CONFIDENCE)
    return {
        "agreement": {
            "value": found.interval.value,
            "low": max(found.interval.low, 0.0),
            "disagree": int((~rows.same).sum()),
            "n": len(rows),
            "groups": None if rows.groups is None else rows.units,
            "copies": rows.copies,
            "method": found.method,
        },
        "correct": None if pair is None else {"source": float(pair[0].mean()), "candidate": float(pair[1].mean())},
        "latency_p50_s": float(np.median(seconds["artifact"])),
        "float_p50_s": float(np.median(seconds["float"])) if "float" in seconds else None,
        "latency_ratio": ratio.value if "float" in seconds else None,
        "size_bytes": artifact_bytes(scene.folders["build"]),
        "route": None if scene.route is None else route.summary(rows, scene.route, pair),
    }
