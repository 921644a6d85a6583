"""Rows that the source itself cannot answer: nobody's toolchain is at fault, and what is told is where they lie.

In: how the source answers, and what the rows of prepared data are called. Out: the same, with an error of the source as a
ConfigError that names the batch, its rows and what its inputs hold. The rule: a machine without memory is no mistake in the data.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from compile.errors import ConfigError, LockstepError
from compile.kept import Array, Batch
from compile.signature import Signature
from compile.worker import rows_in

Infer = Callable[[Batch], Batch]
NO_MEMORY = ("alloc", "out of memory")


def answering(infer: Infer, signature: Signature, names: Callable[[], Array], part: str) -> Infer:
    """`infer` for the batches of `part` in their order; `names`: what its rows are called, asked for only where one fails."""
    document, number, first = signature.document(), 0, 0

    def run(feeds: Batch) -> Batch:
        nonlocal number, first
        count = rows_in(document, feeds)
        try:
            outputs = infer(feeds)
        except (LockstepError, MemoryError):
            raise
        except Exception as error:
            said = (str(error).splitlines() or ["nothing"])[0]
            if any(word in said.lower() for word in NO_MEMORY):
                raise
            here = names()[first : first + count]
            held = ", ".join(_range(t.name, feeds[t.name]) for t in signature.data_inputs)
            raise ConfigError(
                f"{part} batch {number} (rows `{here[0]}` to `{here[-1]}`): the source model itself raised "
                f"{type(error).__name__}: {said}. The batch holds {held}; expected rows that the source can answer"
            ) from error
        number, first = number + 1, first + count
        return outputs

    return run


def _range(name: str, array: Array) -> str:
    if array.dtype.kind not in "iufb" or not array.size:
        return f"`{name}` {array.dtype}"
    return f"`{name}` from {np.min(array):g} to {np.max(array):g}"
