"""What a session may choose."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from turnwise_envs.search.rewards import RewardKind
from turnwise_envs.types import JsonObject

JudgeMode = Literal["off", "measured", "paid"]


class Options(BaseModel):
    """Options of a session, with their defaults."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_turns: int = Field(default=12, ge=1, le=200)
    top_k: int = Field(default=3, ge=1, le=50, description="Documents that a search shows.")
    passage_words: int = Field(
        default=40, ge=1, le=1000, description="Words of each document that a search shows, from its beginning."
    )
    reward: RewardKind = Field(default="em", description="What the answer is worth.")
    search_cost: float = Field(
        default=0.0, ge=0, le=10, description="Taken from the reward for each search and each opened document."
    )
    max_searches: int | None = Field(default=None, ge=0, le=200, description="Searches allowed; null: any number.")
    judge: JudgeMode = Field(
        default="off", description="Have the policy judge each search: measured only, or paid as well (ReSeek)."
    )
    explain: bool = Field(
        default=True, description="Begin the prompt with what can be done; false: it is the question alone."
    )


def options_schema() -> JsonObject:
    """The JSON Schema of :class:`Options`."""
    schema = Options.model_json_schema()
    properties = {name: {k: v for k, v in one.items() if k != "title"} for name, one in schema["properties"].items()}
    return {"type": "object", "properties": properties, "additionalProperties": False}
