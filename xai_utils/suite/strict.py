"""What every checked model of the suite is: closed, frozen, without type conversions, and clear about what is wrong."""

from typing import Any

import pydantic


class Strict(pydantic.BaseModel):
    """A pydantic model that refuses unknown fields, conversions between types, NaN and later changes."""

    model_config = pydantic.ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


def checked(kind: Any, data: Any, what: object) -> Any:
    """`data` as `kind`, or one ValueError that lists every problem of `what`."""
    try:
        return pydantic.TypeAdapter(kind).validate_python(data)
    except pydantic.ValidationError as error:
        lines = [f"{'.'.join(map(str, e['loc']))}: {e['msg']} (got {e['input']!r:.60})" for e in error.errors()]
        raise ValueError("\n  ".join([f"{what} is not valid; correct it:", *lines])) from None
