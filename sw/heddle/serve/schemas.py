# SPDX-License-Identifier: Apache-2.0
"""Bodies of requests and answers, as the OpenAI API has them."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

#: New tokens where nobody says how many, as the OpenAI API has it.
MOST_NEW = 16
#: Texts of one request, for each of its prompts.
MOST_TEXTS = 16
#: Prompts of one request.
MOST_PROMPTS = 128
#: Arguments of the OpenAI API that are known and must be left out or empty.
UNSUPPORTED = ("suffix", "logit_bias")

_Finite = Annotated[float, Field(allow_inf_nan=False)]
_Token = Annotated[int, Field(ge=0)]
_Stop = Annotated[str, Field(min_length=1)]


class StreamOptions(BaseModel):
    """What a stream has besides its text."""

    model_config = ConfigDict(extra="forbid")

    include_usage: bool = Field(False, description="Count the tokens in a last event.")


class CompletionRequest(BaseModel):
    """Body of ``POST /v1/completions``."""

    model_config = ConfigDict(extra="forbid", strict=True)

    model: str
    # The first wrong element is enough: a body may have hundreds of thousands.
    prompt: Annotated[list[str], Field(fail_fast=True, min_length=1, max_length=MOST_PROMPTS)] \
        | Annotated[list[_Token], Field(fail_fast=True, min_length=1)] \
        | Annotated[list[Annotated[list[_Token], Field(fail_fast=True, min_length=1)]],
                    Field(fail_fast=True, min_length=1, max_length=MOST_PROMPTS)] \
        | str = Field("", description="A text, its tokens, or a list of such.")
    max_tokens: Annotated[int, Field(ge=0)] | None = Field(
        MOST_NEW, description="Most new tokens.")
    temperature: Annotated[_Finite, Field(ge=0, le=2)] | None = Field(
        1.0, description="0 takes the best token always.")
    top_p: Annotated[_Finite, Field(gt=0, le=1)] | None = 1.0
    top_k: Annotated[int, Field(ge=1)] | None = Field(
        None, description="Choose among so many best tokens (an addition to the API).")
    n: Annotated[int, Field(ge=1, le=MOST_TEXTS)] | None = Field(
        1, description="Texts for each prompt.")
    best_of: Annotated[int, Field(ge=1, le=MOST_TEXTS)] | None = Field(
        None, description="Must equal n: more texts than are returned are not made.")
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None
    echo: bool | None = False
    stop: Annotated[list[_Stop], Field(fail_fast=True, max_length=4)] | _Stop | None = None
    presence_penalty: Annotated[_Finite, Field(ge=-2, le=2)] | None = 0.0
    frequency_penalty: Annotated[_Finite, Field(ge=-2, le=2)] | None = 0.0
    repetition_penalty: Annotated[_Finite, Field(ge=0.01, le=10)] | None = Field(
        1.0, description="An addition to the API.")
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    suffix: Literal[""] | None = Field(None, description="Not supported: must be empty.")
    logit_bias: Annotated[dict[str, Any], Field(max_length=0)] | None = Field(
        None, description="Not supported: must be empty.")
    user: str | None = Field(None, description="Ignored.")


class Logprobs(BaseModel):
    """Log probabilities of a text's tokens, in nats; lists of equal length."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class Choice(BaseModel):
    """One text, or a piece of it."""

    index: int
    text: str
    logprobs: Logprobs | None = None
    finish_reason: Literal["stop", "length"] | None = None


class Usage(BaseModel):
    """Tokens of all prompts and texts of a request."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Completion(BaseModel):
    """Answer of ``POST /v1/completions``, and each event of a stream."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage | None = None


class ModelCard(BaseModel):
    """One model."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "heddle"


class ModelList(BaseModel):
    """Answer of ``GET /v1/models``."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


class Health(BaseModel):
    """Answer of ``GET /healthz``."""

    status: Literal["ok", "failed", "closing"]
    cards: str
    detail: str | None = None


class ErrorDetail(BaseModel):
    """What was wrong, in one sentence."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorBody(BaseModel):
    """Answer of every request that failed."""

    error: ErrorDetail
