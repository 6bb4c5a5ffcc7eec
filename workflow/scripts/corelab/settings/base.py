"""What every block of the config has in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """A block of the config: frozen, and an unknown key is an error.

    A field is written once: its type, its default, its limits and its description. The JSON schema
    and ``config/README.md`` are generated from the fields.

    Examples
    --------
    >>> class Core(Settings):
    ...     below: float = 0.30
    >>> Core().below, Core.model_validate({"below": 0.38}).below
    (0.3, 0.38)
    >>> Core.model_validate({"belwo": 0.38})  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    pydantic_core._pydantic_core.ValidationError: 1 validation error for Core
    ...
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
