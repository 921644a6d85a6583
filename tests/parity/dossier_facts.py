"""Facts made by hand for the renderers' tests: every status, hostile names, nothing that differs and all that does."""

from __future__ import annotations

from typing import Any

from parity.dossier.change import Before, Now, changed
from parity.dossier.decision import exit_code, ship, stand_in
from parity.dossier.document import Dossier, FindingFact, LimitFact, PolicyFact, Target
from parity.dossier.evidence import Cause, SelfTest, Speed
from parity.dossier.pair import Cell, Confusion, Flip, Pair, Series, Shift, Shown, SliceFact

HOSTILE = "<script>alert(1)</script>|`*_&\"'"
HUGE = "x" * 3000
LIMIT = LimitFact(
    metric="agreement", kind="at_least", bound=0.98, against=("source", "baseline"), precision=("int8",), of="", by=(),
    smallest=50, confidence=0.95, why="one in fifty may differ",
)  # fmt: skip
POLICY = PolicyFact(
    name="default", digest="p" * 64, allow_deferred=("cloud-gpu-*",), goal=None, besides={}, limits=(LIMIT,),
    judged_as={"task": "classification", "baseline": "cloud", "preprocess": "net:crop", "target edge": "required, edge, int8"},
)  # fmt: skip
NOTHING = Cause(missing="To find the cause: lockstep explain m t"), SelfTest(missing="To plant: lockstep selftest m t")


def finding(status: str = "PASS", metric: str = "agreement", **more: Any) -> FindingFact:
    facts: dict[str, Any] = {
        "metric": metric, "unit": "share", "against": "source", "status": status, "sense": "at_least", "limit": 0.98,
        "value": 0.99, "low": 0.985, "high": 0.995, "n": 1000, "needed": None, "groups": None, "confidence": 0.95,
        "why": "one in fifty may differ", "used": 0.75, "sentence": f"{metric}: {status}", "of": metric,
    }  # fmt: skip
    return FindingFact(**(facts | more))


def flip(number: int, name: str, inputs: tuple[Shown, ...]) -> Flip:
    return Flip(
        row=number, id=f"{name}-{number}", label=name, reference=name, candidate=f"not {name}", reference_sure=0.51,
        candidate_sure=0.52, drift=0.01, right=(True, False), inputs=inputs,
    )  # fmt: skip


INPUTS = (
    (Shown(kind="picture", name="image", note="2 × 2", picture="data:image/png;base64,iVBORw0KGgo=", size=(2, 2)),),
    (Shown(kind="wave", name="audio", note="64 samples", wave=tuple((-i / 64, i / 64) for i in range(64))),),
    (Shown(kind="table", name="row", cells=tuple(Cell(name=f"feature[{i}]", value=i, z=i - 4) for i in range(9))),),
    (Shown(kind="text", name="text", text=HUGE + HOSTILE),),
    (Shown(kind="ids", name="input_ids", note="3 ids", text="101 7 102"),),
    (Shown(kind="numbers", name="x", note="float32 [2, 2, 2]", text="1, 2, …"),),
)


def pair(against: str = "baseline", differ: int = 6, name: str = "shirt", n: int = 1000) -> Pair:
    bins = tuple(i / 20 for i in range(21))
    return Pair(
        against=against, other="cloud" if against == "baseline" else "source", n=n, differ=differ, share=differ / n,
        low=0.002, high=0.012, agree=1 - differ / n, agree_low=0.988, groups=None, lost=differ, gained=0,
        sure=(0.5, 0.6) if differ else None, sure_name="confidence",
        confusion=(Confusion(reference=name, candidate=f"not {name}", count=differ),) if differ else (),
        slices=(SliceFact(name=f"class = {name}", n=100, differ=6, value=0.94, low=0.88, high=0.98),), slices_total=1,
        shift=Shift(
            name="confidence", edges=bins, series=(Series(name="reference", counts=(50,) * 20),), flips=(differ,) * 20,
            mark=None, median=0.001, p99=0.1, largest=0.4,
        ),
        flips=tuple(flip(i, name, shown) for i, shown in enumerate(INPUTS)) if differ else (),
        rule="largest first", sentences=(f"{differ} of {n} images change class.",),
    )  # fmt: skip


def target(name: str = "edge", status: str = "PASS", **more: Any) -> Target:
    speed = Speed(
        calls=200, p50_s=1e-4, p95_s=2e-4, p99_s=3e-4, float_p50_s=2e-4, ratio=0.5, ratio_low=0.4, ratio_high=0.6
    )
    facts: dict[str, Any] = {
        "name": name, "page": f"{name}.html", "role": "edge", "hardware": "box", "toolchain": "onnxruntime",
        "precision": "int8", "required": True, "optional_because": None, "deferral_allowed": False, "status": status,
        "why": None, "observed": "here", "baseline_wanted": "cloud", "baseline_used": "cloud", "baseline_why": None,
        "artifact": "a" * 64, "size_bytes": 1000, "float_size_bytes": 4000, "quantized_share": 0.95,
        "right": (0.9, 0.89), "speed": speed, "findings": (finding(status),) if status != "ERROR" else (),
        "pairs": (pair(), pair("source")) if status not in ("ERROR", "DEFERRED") else (), "stand_in": None,
        "cause": NOTHING[0], "selftest": NOTHING[1],
    }  # fmt: skip
    if status in ("ERROR", "DEFERRED"):
        facts |= {"findings": (), "why": f"{status} for a reason", "speed": None, "right": None}
    found = Target(**(facts | more))
    return found.model_copy(update={"stand_in": stand_in(found)}) if found.role == "edge" else found


def dossier(*targets: Target, before: Before | None = None, **more: Any) -> Dossier:
    """A dossier of these targets, with the answers that they give."""
    suite: dict[str, Any] = {
        name: more.pop(name, usual)
        for name, usual in (
            ("suite_digest", "u" * 64), ("suite_inputs_digest", "i" * 64), ("suite_columns", ("labels",)),
            ("policy", POLICY), ("judged_before", None),
        )
    }  # fmt: skip
    now = Now(source_digest="s" * 64, targets=targets, recipe=more.get("recipe", {}), **suite)
    facts: dict[str, Any] = {
        "model": "m", "description": "", "kind": "classification", "noun": "images", "rows": 1000,
        "source_digest": "s" * 64, "release_digest": "r" * 64,
        "exit_code": exit_code(targets), "ship": ship(targets, "m"), "targets": targets,
        "change": changed(before or Before(), now), "caveats": (),
    }  # fmt: skip
    return Dossier(**(facts | suite | more))
