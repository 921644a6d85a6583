"""What every part of a dossier is: frozen, and nothing that it does not name."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Fact(BaseModel):
    """Part of the document. Infinity and NaN are written as words, for JSON has neither."""

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="strings")
