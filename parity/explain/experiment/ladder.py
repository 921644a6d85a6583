"""The intervention ladder: neighbouring rungs differ by one thing, and the rung that brings most of the error names the step.

In: what the source and each rung answered on the suite. Out: a `Standing` for each rung. The rules, none of them a matter
of taste: a rung that should only reorder sums breaks where it is further from the rung before than the policy lets a float
compile be from the source, in noise floors; a rung that rounds by design (the quantized graph) breaks where it is past
that floor; what compiles it breaks where it more than doubles the error that was there before. Where the source itself rounds
so coarsely that its floor says little (it stores integers), what was found breaks where it more than doubles that error, too.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from compile.config import ModelFile
from parity.answers import Flags, agree
from parity.explain.graph.tensors import noise_over_signal
from parity.laws import broken_laws
from parity.observed import Observed
from parity.policy import Policy
from parity.statistics import estimate
from parity.statistics.counted import Interval
from parity.statistics.estimate import Codes

RungName = Literal[
    "source",
    "exported graph",
    "optimizer on",
    "runtime, precision pinned",
    "runtime's defaults",
    "quantized graph simulated",
    "compiled artifact",
    "artifact as found",
    "observation as found",
]
Rule = Literal["floor", "doubled"]
DOUBLED = 2.0
FLOORS = 10.0
"""Where the policy sets no `float_error`: the default policy's own limit."""
COARSE = 1e-2
"""Noise over signal of four bits' rounding (about 20 dB): a limit that lets as much pass is none for rounding to float32."""
WORTH = 1e-3
"""The share of an error that, left over, is not worth a second cause (30 dB below the first)."""
FOUND = frozenset({"artifact as found", "observation as found"})
CONFIDENCE = 0.95
ANSWERS, ORDER = "answers.npy", "order.npy"
"""Beside each rung its answers, and beside all of them the row of the suite that each answer belongs to."""


@dataclass(frozen=True, slots=True)
class Rung:
    """One way to compute the answers. `after`: the rung it is compared with; `leads`: whether the artifact comes this way."""

    name: RungName
    outputs: Path | None
    why: str | None = None
    after: RungName | None = None
    leads: bool = True
    rule: Rule = "floor"
    seconds: float = 0.0
    """How long it ran here, where that was measured."""


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a rung stands: agreement with the source, noise over signal to it and to the rung before, laws it breaks.

    `as_source`: of what was found, that it answers as the source does, whatever the rungs before it do.
    """

    rung: Rung
    agreement: Interval | None
    disagree: int
    n: int
    noise: float
    step: float
    floors: float
    laws: tuple[str, ...]
    broke: bool
    as_source: bool = False

    @property
    def sqnr_db(self) -> float:
        return math.inf if self.noise == 0 else -math.inf if math.isinf(self.noise) else -10 * math.log10(self.noise)


@dataclass(frozen=True, slots=True)
class Scale:
    """What counts as nothing: the noise floor of each output, and how many of it a float compile may be off."""

    floors: Mapping[str, float]
    allowed: float


def slug(name: str) -> str:
    """A rung's name as a folder's."""
    return "-".join("".join(c if c.isalnum() else " " for c in name.replace("'", "")).split())


def scale_of(source: Path, policy: Policy) -> Scale:
    """The measured floors of a source and the limit that the policy sets in them."""
    floors = json.loads((source / "floor.json").read_text())["outputs"]
    limits = [limit.threshold for limit in policy.limits if limit.metric == "float_error"]
    return Scale(floors, min(limits, default=FLOORS))


def climb(rungs: Sequence[Rung], config: ModelFile, scale: Scale, groups: Codes | None = None) -> list[Standing]:
    """The standing of every rung that ran, from the source up. `groups`: which observed rows belong together."""
    source = Observed(_folder(rungs[0]), config)
    seen: dict[RungName, Standing] = {}
    for rung in rungs:
        if rung.outputs is not None:
            before = seen.get(rung.after) if rung.after else None
            seen[rung.name] = _standing(rung, source, before, config, scale, groups)
    return list(seen.values())


def _folder(rung: Rung) -> Path:
    assert rung.outputs is not None
    return rung.outputs.parent


def _standing(
    rung: Rung, source: Observed, before: Standing | None, config: ModelFile, scale: Scale, groups: Codes | None
) -> Standing:
    seen = Observed(_folder(rung), config)
    laws = tuple(said for _, broken in broken_laws(source, seen) for said in broken)
    if laws:
        return Standing(rung, None, 0, 0, math.inf, math.inf, math.inf, laws, broke=True)
    same = alike(source, seen, config)
    bounds = bounded(same, groups)
    noise = noise_between(source, seen, config)
    previous = source if before is None else Observed(_folder(before.rung), config)
    usable = before is None or not before.laws
    step = noise_between(previous, seen, config) if usable else math.inf
    floors = _in_floors(previous, seen, config, scale) if usable else math.inf
    broke = not floors <= scale.allowed
    if rung.rule == "doubled" and before is not None:
        broke = broke and not noise <= DOUBLED * before.noise
    as_source = False
    if rung.name in FOUND and before is not None:
        coarse = scale.allowed**2 * _floor_noise(source, config, scale) > COARSE
        broke = broke or (coarse and noise > max(DOUBLED * before.noise, COARSE))
        as_source = not coarse and _in_floors(source, seen, config, scale) <= scale.allowed
    broke = broke and rung.name != "source"
    return Standing(rung, bounds, int((~same).sum()), len(same), noise, step, floors, (), broke, as_source)


def bounded(same: Flags, groups: Codes | None) -> Interval:
    """The share of rows that agree, as the judge bounds it; 0 to 1 where too few groups support nothing."""
    found = estimate.share(same, groups, CONFIDENCE)(len(same)).interval
    return Interval(found.value, max(found.low, 0.0), min(found.high, 1.0))


def alike(one: Observed, other: Observed, config: ModelFile) -> Flags:
    """Row by row, whether the two give the same answer."""
    return agree(config.task, one.answers(), other.answers())


def noise_between(one: Observed, other: Observed, config: ModelFile) -> float:
    """The largest noise over signal of the float outputs; of integer outputs, the share that differs."""
    found = []
    for tensor in config.signature.answers:
        ours = [batch[tensor.name] for batch in one.batches()]
        theirs = [batch[tensor.name] for batch in other.batches()]
        if tensor.dtype.startswith("float"):
            found.append(noise_over_signal(ours, theirs))
        else:
            found.append(float(np.mean([np.mean(a != b) for a, b in zip(ours, theirs, strict=True)])))
    return max(found)


def _floor_noise(source: Observed, config: ModelFile, scale: Scale) -> float:
    """The largest noise over signal of an output that is one noise floor off throughout."""
    found = [0.0]
    for tensor in config.signature.answers:
        if tensor.name in scale.floors:
            numbers = np.concatenate([batch[tensor.name].ravel() for batch in source.batches()]).astype(np.float64)
            found.append(scale.floors[tensor.name] ** 2 / max(float((numbers**2).mean()), np.finfo(float).tiny))
    return max(found)


def _in_floors(one: Observed, other: Observed, config: ModelFile, scale: Scale) -> float:
    """The largest difference in multiples of the noise floor; infinite for integer outputs that differ at all."""
    worst = 0.0
    for ours, theirs in zip(one.batches(), other.batches(), strict=True):
        for tensor in config.signature.answers:
            if tensor.name in scale.floors:
                gap = np.abs(ours[tensor.name].astype(np.float64) - theirs[tensor.name]).max(initial=0.0)
                worst = max(worst, float(gap) / scale.floors[tensor.name])
            elif not np.array_equal(ours[tensor.name], theirs[tensor.name]):
                worst = math.inf
    return worst


def outputs_of(standing: Standing) -> Path:
    """Where the answers of a rung that ran lie."""
    assert standing.rung.outputs is not None
    return standing.rung.outputs


def culprit(standings: Sequence[Standing]) -> Standing | None:
    """The last broken rung on the way to the artifact, or one before it that is further from its own rung before: it brings
    more of the error. None where nothing broke, or where what was found answers as the source does.

    Quantizing is asked for: of what breaks behind it, it takes nothing away.
    """
    leading = [standing for standing in standings if standing.rung.leads]
    if leading and leading[-1].as_source:
        return None
    broken = [standing for standing in leading if standing.broke]
    able = [standing for standing in broken[:-1] if standing.rung.name != "quantized graph simulated"]
    return max([*able, *broken[-1:]], key=lambda one: one.step, default=None)


def adds(further: Standing, broken: Standing) -> bool:
    """Whether a rung that breaks behind the step is worth a word: in noise beside the step's own, or in fewer equal answers."""
    if further.step > WORTH * broken.step or further.agreement is None or broken.agreement is None:
        return further.step > WORTH * broken.step
    return further.agreement.high < broken.agreement.low


def nearest(found: Path, candidates: Sequence[Rung], config: ModelFile) -> RungName:
    """The rung whose answers an artifact from elsewhere is nearest to."""
    seen = Observed(found.parent, config)
    ran = [rung for rung in candidates if rung.outputs is not None]
    return min(ran, key=lambda rung: noise_between(Observed(_folder(rung), config), seen, config)).name
