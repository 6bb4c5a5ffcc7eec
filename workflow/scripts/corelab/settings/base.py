"""What every block of the config has in common, and the types of its values."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, get_args, get_origin

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)
from pydantic.json_schema import JsonSchemaValue, SkipJsonSchema
from pydantic_core import CoreSchema, core_schema

from corelab.terms.plugins import BUILT_IN, names


def _as_written(value: Any, check: ValidatorFunctionWrapHandler) -> Any:
    """Leave a whole number whole: 6 is written to parameters and records as 6, not as 6.0."""
    checked = check(value)
    return value if type(value) is int else checked


#: A number; whole numbers stay whole.
Number = Annotated[float, WrapValidator(_as_written)]
Positive = Annotated[Number, Field(gt=0)]
NotNegative = Annotated[Number, Field(ge=0)]
#: Share of a whole, 0 included.
Fraction = Annotated[Number, Field(ge=0, le=1)]
#: Share of a whole, more than 0.
Share = Annotated[Number, Field(gt=0, le=1)]
Count = Annotated[int, Field(ge=0)]
OneOrMore = Annotated[int, Field(ge=1)]
#: Text of one character or more.
Text = Annotated[str, Field(min_length=1)]
Texts = tuple[str, ...]
#: Type of an optional key without a default: the attribute is None, null is not allowed.
Absent = SkipJsonSchema[None]
#: Pattern of a date, ISO 8601.
DATE = r"^\d{4}-\d{2}-\d{2}"


def fingerprint(value: Any) -> str:
    """First 16 characters of the SHA-256 of a value as JSON with sorted keys.

    Examples
    --------
    >>> fingerprint({"analyses": [], "visits": {"order": [], "baseline": None}})
    'f6940264af1e7d90'
    """
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def pattern(expression: str) -> Any:
    """Field with a pattern of JSON schema, which is checked before a block is built."""
    return Field(json_schema_extra={"pattern": expression})


@dataclass(frozen=True)
class Registered:
    """Text that is a name of a registry, the library's or of another package.

    In the generated schema stand the library's; the others join when it is read.
    """

    registry: str

    def _check(self, name: str) -> str:
        if name not in names(self.registry):
            raise ValueError(f"'{name}' is not one of {', '.join(names(self.registry))}")
        return name

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """The text, and the check of its name."""
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """The names of the library."""
        names_here = {"enum": list(BUILT_IN[self.registry]), "x-registry": self.registry}
        return {**handler(schema), **names_here}


def one_of_keys(*keys: str, rule: str = "oneOf") -> ConfigDict:
    """Config of a block that has exactly one of the keys; ``anyOf``: at least one."""
    return ConfigDict(json_schema_extra={rule: [{"required": [key]} for key in keys]})


#: Field of a list without repeated values.
UNIQUE: Any = Field(json_schema_extra={"uniqueItems": True})


class Settings(BaseModel):
    """A block of the config: frozen, and an unknown key is an error.

    A field is written once: its type, its default and its limits; the text below a field is its
    description, the text of the class that of its block. The JSON schema and ``config/README.md``
    are generated from them (:mod:`corelab.settings.schema`).

    Examples
    --------
    >>> class Toy(Settings):
    ...     below: float = 0.30
    >>> Toy.model_validate({"belwo": 0.38})  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    pydantic_core._pydantic_core.ValidationError: 1 validation error for Toy
    ...
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    def plain(self, *names: str, without: Collection[str] = ()) -> dict[str, Any]:
        """The block, or those of its fields, as JSON data with all defaults, as jobs get it.

        Keys of ``without`` are left out: their change reruns no job. Optional keys that are absent
        stay absent.

        Examples
        --------
        >>> class Limit(Settings):
        ...     low: Number = 0
        ...     high: Number | Absent = None
        ...     names: Texts = ("a",)
        >>> Limit(low=6).plain()
        {'low': 6, 'names': ['a']}
        """
        if names:
            return {name: _plain(getattr(self, name)) for name in names}
        values = {**self.__dict__, **(self.__pydantic_extra__ or {})}
        optional = _optional(type(self))
        return {
            name: _plain(value)
            for name, value in values.items()
            if name not in without and (value is not None or name not in optional)
        }


def _plain(value: Any) -> Any:
    if isinstance(value, Settings):
        return value.plain()
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, (list, tuple)) else value


@cache
def _optional(block: type[Settings]) -> frozenset[str]:
    """Fields of type :data:`Absent`."""
    return frozenset(
        name
        for name, field in block.model_fields.items()
        for option in get_args(field.annotation)
        if get_origin(option) is Annotated and get_args(option)[0] is type(None)
    )
