"""Options stored in a bundle, as the frozen dataclass they belong to."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from vidtad.errors import InputError


def known_fields(kind: type, values: Mapping[str, Any], where: str) -> Any:
    """`kind(**values)` for a frozen dataclass of options; InputError for a name or value it does not take."""
    unknown = sorted(values.keys() - {field.name for field in fields(kind)})
    if unknown:
        raise InputError(f"{where}: unknown entry {unknown[0]!r}; upgrade vidtad or make the bundle again")
    try:
        return kind(**values)
    except (TypeError, ValueError) as error:
        raise InputError(f"{where}: {error}") from error
