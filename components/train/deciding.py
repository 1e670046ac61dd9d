"""Which token of an answer says that a tool fits."""

from typing import TYPE_CHECKING

from components import native, prompt, rendering
from components.schema import Answer, Call, Json, Message
from components.train.recipe import Recipe

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_TOOL: dict[str, Json] = {"type": "function", "function": {"name": "sound_depth"}}
_ASKED: list[dict[str, Json]] = [{"role": "user", "content": "How deep is it?"}]


def call_token(tokenizer: "PreTrainedTokenizerBase", recipe: Recipe) -> int:
    """Give the token that a call begins with, in the form that the base's calls have.

    Raises:
        ValueError: The recipe weighs an answer's first token, and this base's chat template begins
            calls and other answers alike (Qwen 3 with an empty thought), so it decides nothing.
    """
    asked = rendering.render(tokenizer, _ASKED, [_TOOL])
    before = asked.to_text(tokenizer)

    def first_token(answer: Answer) -> int:
        content = native.write_answer(asked.form, answer)
        turns: list[Message] = [*asked.messages, {"role": "assistant", "content": content}]
        whole = prompt.to_text(tokenizer, turns, asked.tools, answered=True)
        return tokenizer(whole[len(before) :], add_special_tokens=False).input_ids[0]

    called = first_token(Answer(calls=(Call("sound_depth", {}),)))
    refused = first_token(Answer("No"))
    if called == refused and (recipe.call_margin or recipe.first_token_weight != 1):
        raise ValueError(
            f"the chat template of {tokenizer.name_or_path} begins every answer with "
            f"{tokenizer.decode([called])!r}, so its first token decides nothing; leave out "
            "call_margin and first_token_weight"
        )
    return called
