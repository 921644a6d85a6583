"""The answers in outputs that are held as arrays of all rows, rows first: as an observation gives them batch by batch."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from compile import user_code
from compile.config import ModelFile
from parity import answers

Array = NDArray[Any]


def of(config: ModelFile, outputs: dict[str, Array]) -> Array:
    """One answer a row."""
    task = config.task
    if task.postprocess is None:
        return answers.answers(task.kind, outputs[task.output or config.signature.answers[0].name])
    axes = {t.name: t.batch_axis or 0 for t in config.signature.answers}
    as_given = {name: np.moveaxis(array, 0, axes.get(name, 0)) for name, array in outputs.items()}
    return answers.answers(task.kind, np.asarray(user_code.function(task.postprocess, "task.postprocess")(as_given)))
