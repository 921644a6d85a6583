"""Which candidate comes next, given what the ones before gave.

In: a starting recipe, the choices that mean something for this model, a way to try a recipe and a way to rank layers.
Out: nothing: who tries remembers. Pure: neither clock, disk nor process; time runs out by what `tried` raises. The rule: what
usually helps and costs no speed comes first; layers go back to float where that does not pass, the worst first, as few as
possible.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from compile.recipe import Recipe
from parity.tune.trial import Trial, best

Tried = Callable[[Recipe], Trial]
Ranked = Callable[[Trial], Sequence[str]]
STARTS = 2
"""From so many of the nearest recipes layers are restored."""
SMOOTHINGS = (None, 0.5, 0.75, 0.85)
"""Off, the paper's own value (Xiao et al. 2023), and the two that the measured encoders did best with."""


@dataclass(frozen=True, slots=True)
class Choices:
    """What can change anything here: smoothing needs norms before layers, `embeddings` stored tables."""

    smoothing: bool
    embeddings: bool


def search(base: Recipe, choices: Choices, tried: Tried, ranked: Ranked) -> None:
    """Try what usually helps and restore layers where it does not; then what seldom helps, and all of it together."""
    plain = [tried(base), *(tried(recipe) for recipe in usual(base, choices))]
    restore(plain, 1, tried, ranked)
    plain += [tried(recipe) for recipe in seldom(base, choices)]
    plain.append(tried(together(base, plain)))
    restore(plain, STARTS, tried, ranked)


def restore(plain: Sequence[Trial], starts: int, tried: Tried, ranked: Ranked) -> None:
    """Layers back to float, from so many of the nearest recipes; nothing where a plain one passes."""
    if any(trial.passes for trial in plain):
        return
    for start in nearest_first(plain)[:starts]:
        layers = [name for name in ranked(start) if name not in start.recipe.keep_float]
        found = fewest(start.recipe, layers, tried)
        if found is not None:
            thinned(start.recipe, found, tried)


def usual(base: Recipe, choices: Choices) -> Iterator[Recipe]:
    """Recipes that differ from the base in one choice which often decides."""
    if choices.smoothing:
        for alpha in SMOOTHINGS:
            if alpha != base.smoothing:
                yield replace(base, smoothing=alpha)
    yield replace(base, algorithm="kl" if base.algorithm == "minmax" else "minmax")


def seldom(base: Recipe, choices: Choices) -> Iterator[Recipe]:
    """Recipes that differ from the base in one choice which seldom helps, and sometimes does."""
    yield replace(base, granularity="per_tensor" if base.granularity == "per_channel" else "per_channel")
    if choices.embeddings:
        yield replace(base, embeddings=not base.embeddings)
    yield replace(base, dialect="int8-symmetric" if base.dialect == "uint8-asymmetric" else "uint8-asymmetric")


def together(base: Recipe, plain: Sequence[Trial]) -> Recipe:
    """Of every choice the value whose trial was best; the base's where no change of it was better."""
    chosen: dict[str, Any] = {}
    for field in fields(Recipe):
        alone = [trial for trial in plain if _differs_by(base, trial.recipe) in ((), (field.name,))]
        found = best(alone)
        if found is not None:
            chosen[field.name] = getattr(found.recipe, field.name)
    return replace(base, **chosen)


def _differs_by(one: Recipe, other: Recipe) -> tuple[str, ...]:
    return tuple(f.name for f in fields(Recipe) if getattr(one, f.name) != getattr(other, f.name))


def nearest_first(trials: Sequence[Trial]) -> list[Trial]:
    """Those that ran, the one that misses by least first, one of each graph."""
    ran = {trial.graph: trial for trial in reversed(trials) if trial.failed is None and trial.worst is not None}
    return sorted(ran.values(), key=lambda trial: -trial.worst.room if trial.worst is not None else 0.0)


def fewest(start: Recipe, layers: Sequence[str], tried: Tried) -> Trial | None:
    """The shortest prefix of the ranked layers that in float is good enough: doubled until one is, then halved in between.

    One that is good enough and too slow is long enough: with fewer layers in float it may pass. One layer stays integer at
    least. None where no prefix is good enough.
    """
    most, short, size = len(layers) - 1, 0, 1
    found: Trial | None = None
    while found is None and short < most:
        size = min(size, most)
        trial = tried(kept(start, layers[:size]))
        if trial.good_enough:
            found = trial
        else:
            short, size = size, 2 * size
    while found is not None and size - short > 1:
        middle = (size + short) // 2
        trial = tried(kept(start, layers[:middle]))
        if trial.good_enough:
            found, size = trial, middle
        else:
            short = middle
    return found


def thinned(start: Recipe, found: Trial, tried: Tried) -> None:
    """Layers made integer again one by one, the least damaging first, as long as it stays good enough."""
    names = [name for name in found.recipe.keep_float if name not in start.keep_float]
    for name in reversed(names[:-1]):  # without its last one the prefix was tried, and failed
        trial = tried(kept(start, [other for other in names if other != name]))
        if trial.good_enough:
            names.remove(name)


def kept(recipe: Recipe, layers: Sequence[str]) -> Recipe:
    """The recipe with these layers in float too."""
    return replace(recipe, keep_float=(*recipe.keep_float, *layers))
