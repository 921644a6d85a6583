"""What a suite can decide, before any run: limit by limit, the rows that each needs, and an equal model's chances."""
