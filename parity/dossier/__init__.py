"""The dossier: one run's facts, and the pages, the summary and the test report that are renderings of them."""

from typing import Literal

SCHEMA: Literal["lockstep.dossier/1"] = "lockstep.dossier/1"
"""The schema of the facts; another one is not compared with."""
FACTS = "dossier.json"
SUPERSEDED = "superseded.json"
"""The facts of the last run that was judged, once a later one could not be."""
RELEASE_PAGE = "release.html"
