"""What every model's configuration is made of."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

PositiveInt = Annotated[int, Field(ge=1)]


class ModelConfig(BaseModel):
    """A frozen value whose fields are all known: a misspelt or superfluous one is an error, never ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False, allow_inf_nan=False)
