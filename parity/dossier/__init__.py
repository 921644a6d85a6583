"""The dossier: one run's facts, and the pages, the summary and the test report that are renderings of them."""
