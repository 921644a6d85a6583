"""What an export did to a source: mistakes around the source, its own tensors left out, modules that answer otherwise.

In: a `Case` whose float graph broke, and the source itself, which is run here. Out: a `Cause`. The rule: what is done to the
source and then answers as the exported graph does is the cause; else the first module is named whose tensor is another.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import combinations, product
from typing import TYPE_CHECKING

from compile import percent
from compile.errors import ToolchainError
from compile.graph import source_module
from compile.reference import in_float32
from compile.signature import Signature
from compile.source import Source
from parity.explain.experiment.case import Case
from parity.explain.experiment.ladder import WORTH, Standing, outputs_of
from parity.explain.experiment.told import Cause
from parity.explain.experiment.trials import trials_of
from parity.explain.graph.simulate import Batch, Infer, answered
from parity.explain.graph.tensors import comparable, compare, exposed, noise_over_signal
from parity.explain.mistake.hypotheses import ALIKE, Array, Bench, Hypothesis, Trial
from parity.explain.mistake.screening import screened

if TYPE_CHECKING:
    import torch

BROKE = "the exported graph already answers otherwise than the source"
MOST_TOGETHER = 4
"""Tensors of one module, of which every two are left out together: a normalization's four."""
AGAIN = "export it again from what the source computes"


def exported(case: Case, sound: Standing, broken: Standing) -> Cause:
    """The cause within the export; unexplained where none is found, and no module can be named."""
    assert case.source is not None
    source, signature = case.source(), case.config.signature
    sides = [case.answers_in(outputs_of(one)) for one in (sound, broken)]
    bench = case.bench_of_source(_asked(source, signature), *sides)
    trials = trials_of(case, bench, [])
    if source.module is not None and not (trials and trials[0].holds and trials[0].score >= ALIKE):
        trials += screened(bench, partial(_altered, source.module, _stored(case)), "tensors left out")
        trials.sort(key=lambda one: -one.score)
    if trials and trials[0].holds:
        best = trials[0]
        told = best.name.replace("the candidate", "the exported graph")
        share = percent.share(best.score, 1)
        return Cause("export", f"{told}; done to the source, this reproduces {share} of the error", AGAIN, trials)
    return _named(case, source, broken, trials)


def _named(case: Case, source: Source, broken: Standing, trials: Sequence[Trial]) -> Cause:
    """The first module whose tensor is another than the source's."""
    before = None
    try:
        noises = list(_noises(case, source))
    except ToolchainError:  # the exported graph cannot be opened inside
        noises = []
    for module, noise in noises:
        if not noise <= WORTH * broken.noise:
            equal = "" if before is None else f"up to `{before}` its tensors are the source's, "
            told = f"{BROKE}: {equal}those of `{module}` are not"
            return Cause("export", told, None, trials, modules=[module])
        before = module
    return Cause("unexplained", f"{BROKE}; what within the export does it is not known", None, trials)


def _asked(source: Source, signature: Signature) -> Infer:
    infer = in_float32(source, signature)

    def asked(feeds: Batch) -> Batch:
        try:
            return infer(feeds)
        except Exception as error:  # user code raises its own kinds
            raise ToolchainError(f"the source cannot be run so: {error}") from error

    return asked


def _stored(case: Case) -> set[str]:
    return {tensor.name for tensor in case.exact.graph.initializer}


def _altered(module: torch.nn.Module, stored: set[str], bench: Bench) -> Iterator[Hypothesis]:
    """The source in training mode, or without tensors of its own that the exported graph does not have under their names."""
    tensors = module.state_dict()
    gone = [name for name, one in tensors.items() if one.is_floating_point() and name not in stored]
    owners: dict[str, list[str]] = {}
    for name in gone:
        owners.setdefault(name.rpartition(".")[0], []).append(name)
    pairs = [pair for names in owners.values() if len(names) <= MOST_TOGETHER for pair in combinations(names, 2)]
    neutral = [*({name: value} for name, value in product(gone, (0.0, 1.0)))]
    neutral += [{a: value, b: 1 - value} for (a, b), value in product(pairs, (0.0, 1.0))]
    yield _hypothesis(bench, "as in training (by each batch's own mean and deviation)", module, {}, training=True)
    for values in neutral:
        yield _hypothesis(bench, f"without {' and '.join(f'`{name}`' for name in values)}", module, values)


def _hypothesis(
    bench: Bench, said: str, module: torch.nn.Module, values: dict[str, float], *, training: bool = False
) -> Hypothesis:
    def predict() -> list[Batch]:
        other = copy.deepcopy(module).train(training)
        for name, tensor in other.state_dict().items():
            if name in values:
                tensor.fill_(values[name])
        return answered(_asked(Source(module=other), bench.signature), bench.batches, bench.signature)

    return Hypothesis(f"the candidate computes {said}", AGAIN, predict, ALIKE)


def _noises(case: Case, source: Source) -> Iterator[tuple[str, float]]:
    """Of each module that both sides have a tensor of, in the source's order: noise over signal."""
    feeds = case.feeds()
    if source.graph is not None:
        yield from ((one.module, one.noise) for one in compare(source.graph, case.exact, feeds))
    if source.module is None:
        return
    last = {name: n.output[0] for n in case.exact.graph.node if n.output and (name := source_module(n)) is not None}
    if not last:
        return
    infer, ours = exposed(case.exact, list(last.values())), _gives(source, case.config.signature, feeds)
    theirs = [infer(batch) for batch in feeds]
    for module, arrays in ours.items():
        found = [batch[last[module]] for batch in theirs] if module in last else []
        if found and all(comparable(one, other) for one, other in zip(arrays, found, strict=True)):
            yield module, noise_over_signal(arrays, found)


def _gives(source: Source, signature: Signature, feeds: Sequence[Batch]) -> dict[str, list[Array]]:
    """What each of the source's modules gives for each batch, in the order of computing; of those that run once a batch."""
    import torch

    assert source.module is not None
    given: dict[str, list[Array]] = {}

    def note(name: str, _module: object, _read: object, gives: object) -> None:
        if isinstance(gives, torch.Tensor):
            given.setdefault(name, []).append(gives.detach().numpy().copy())

    named = [(name, one) for name, one in source.module.named_modules() if name]
    hooks = [one.register_forward_hook(partial(note, name)) for name, one in named]
    infer = _asked(source, signature)
    for batch in feeds:
        infer(batch)
    for hook in hooks:
        hook.remove()
    return {name: arrays for name, arrays in given.items() if len(arrays) == len(feeds)}
