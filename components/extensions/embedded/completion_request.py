"""OpenAI's completion requests, with vLLM's fields: read and checked."""

from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from components.chat.answer_grammar import MAX_CHARACTERS

MAX_LOGPROBS = 20  # vLLM's default
MAX_STOPS = 64  # each one is searched for after each token, while other requests wait

Token: TypeAlias = Annotated[int, Field(ge=0, strict=True)]

# With an error for each of a million items, a request kept all others waiting for 20 s.
Tokens: TypeAlias = Annotated[list[Token], Field(fail_fast=True)]
Texts: TypeAlias = Annotated[list[str], Field(fail_fast=True)]


class StreamOptions(BaseModel):
    """What a stream contains besides the text."""

    include_usage: bool = False


class StructuredOutputs(BaseModel):
    """What an answer must match; exactly one of the three."""

    model_config = ConfigDict(extra="forbid")

    grammar: str | None = Field(default=None, max_length=MAX_CHARACTERS)
    """Lark, as llguidance reads it."""
    json_schema: dict[str, JsonValue] | str | None = Field(default=None, alias="json")
    choice: Texts | None = None

    @model_validator(mode="after")
    def _has_one(self) -> Self:
        if sum(value is not None for value in (self.grammar, self.json_schema, self.choice)) != 1:
            raise ValueError("expected exactly one of `grammar`, `json` and `choice`")
        return self


class CompletionRequest(BaseModel):
    """``POST /v1/completions``. Unknown fields are ignored, as OpenAI's servers do."""

    model: str
    prompt: str | Tokens | Texts | Annotated[list[Tokens], Field(fail_fast=True)]
    max_tokens: int | None = Field(default=16, ge=0)
    temperature: float | None = Field(default=None, ge=0, le=100)
    top_p: float | None = Field(default=None, gt=0, le=1)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    stop: str | Texts | None = None
    stop_token_ids: Tokens | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    logprobs: int | None = Field(default=None, ge=0, le=MAX_LOGPROBS)
    prompt_logprobs: int | None = Field(default=None, ge=0, le=MAX_LOGPROBS)
    echo: bool | None = False
    add_special_tokens: bool = True
    skip_special_tokens: bool = True
    ignore_eos: bool = False
    repetition_penalty: float | None = Field(default=None, ge=0.01, le=100)
    structured_outputs: StructuredOutputs | None = None
    user: str | None = None
    """Whose request it is; slots and the queue are shared among users."""

    # What would change the answer and isn't computed here is refused, unless it changes nothing.
    n: Literal[1] | None = 1
    best_of: Literal[1] | None = 1
    suffix: Literal[""] | None = None
    presence_penalty: Literal[0] | None = 0
    frequency_penalty: Literal[0] | None = 0
    min_p: Literal[0] | None = 0
    top_k: Literal[0, -1] | None = 0
    min_tokens: Literal[0] | None = 0
    use_beam_search: Literal[False] | None = False
    logit_bias: dict[str, float] | None = Field(default=None, max_length=0)

    @model_validator(mode="before")
    @classmethod
    def _takes_whole_floats(cls, value: Any) -> Any:  # noqa: ANN401 - any JSON
        # `Literal[0]` takes 0 but not 0.0, which clients send as well.
        if isinstance(value, dict):
            return {
                name: int(item) if isinstance(item, float) and item.is_integer() else item
                for name, item in value.items()
            }
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.prompt_logprobs is not None and self.stream:
            raise ValueError("`prompt_logprobs` are not available when `stream` is true")
        if self.stream_options is not None and not self.stream:
            raise ValueError("`stream_options` needs `stream: true`")
        if len(self.stops) > MAX_STOPS:
            raise ValueError(f"`stop` has {len(self.stops)} texts; at most {MAX_STOPS} are taken")
        return self

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop strings."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    def only_prompt(self) -> str | list[int]:
        """Return the prompt, also out of a list with one."""
        prompt = self.prompt
        if isinstance(prompt, str) or (prompt and isinstance(prompt[0], int)):
            return prompt  # pyright: ignore[reportReturnType]
        if len(prompt) != 1:
            raise ValueError(
                f"expected one prompt, found a list of {len(prompt)}; send a request for each"
            )
        return prompt[0]  # pyright: ignore[reportReturnType]
