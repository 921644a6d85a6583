"""The pool of the self-test, from the file in the package `river`: the 21,097 rows that are neither in the suite nor fitted to."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from examples.sensor_anomaly.make import FIT_ROWS, columns, find_data, read_rows, split

BATCH = 500


def pool() -> Iterator[dict[str, np.ndarray]]:
    """Batches of readings with their labels; in the order of the file."""
    source = find_data()
    if source is None or not source.is_file():
        raise FileNotFoundError("no shuttle.csv.gz: pip install --no-deps river==0.26.1")
    features, labels = read_rows(source)
    rest = split(len(labels))[1]
    fit = rest[labels[rest] == 0][:FIT_ROWS]
    unseen = np.setdiff1d(rest, fit)
    for start in range(0, len(unseen), BATCH):
        yield columns(features, labels, unseen[start : start + BATCH], fit)
