"""Serve an adapter as an MLflow model: an OpenAI chat request in, an OpenAI chat completion out.

A version holds the adapter only: its base is loaded from the folder that it was trained from, and
that base's content must have the hash that the version was trained on.

Before anything is loaded, the version's folder must hold its signature and the approval, as
``flywheel verify`` checks them. A version cannot check itself: whoever changed its files could
leave that out, so check it before MLflow loads it, with ``flywheel verify`` or ``model_signing``.
"""

import json
import os
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from mlflow.pyfunc.model import PythonModel, PythonModelContext  # noqa: TID253 - MLflow loads it

from components.chat import answer_grammar, chat_templates, dialects
from components.chat.dialects import Dialect
from components.chat.schema_grammar import UnsupportedSchemaError
from components.models import base, model_signature
from components.register import logged_model
from components.schema import Answer, Json

if TYPE_CHECKING:
    from components.models.constrained import GrammarMasks, Vocabulary

Request: TypeAlias = dict[str, list[dict[str, Json]]]


class AdapterChatModel(PythonModel):
    """Answers one chat request at a time, greedily, at the precision of the evaluation."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the base and attach the adapter.

        ``model_config={"undecided": True}`` also loads a version that nobody has approved yet.

        Raises:
            ModelSignatureError: A file of the version was changed, or nobody approved it.
            ValueError: The base on this machine differs from that of the training.
            TemplateChangedError: The prompt template has changed.
        """
        adapter = Path(context.artifacts["adapter"])
        version = adapter.parents[1]
        written = logged_model.bytecode(version)
        try:
            model_signature.verify(version, public_key(), leaving_out=written)
            if not context.model_config["undecided"]:
                logged_model.require_decided(version)
        finally:
            logged_model.delete_bytecode(version)
        folder = Path(context.model_config["base"])
        expected: str = context.model_config["base_hash"]
        actual = base.content_hash(folder)
        if actual != expected:
            raise ValueError(
                f"loading {adapter}: the base at {folder} has content hash {actual}, but this "
                f"adapter was trained on {expected}"
            )
        chat_templates.require_same(
            context.model_config[chat_templates.TEMPLATE],
            chat_templates.template_hash(folder),
            f"serving {adapter}",
        )
        precision = context.model_config["precision"]
        model, self.tokenizer = base.load(folder, precision, for_training=False)
        self.model = base.attach_adapter(model, adapter).eval()
        self.max_new_tokens: int = context.model_config["max_new_tokens"]
        self.vocabulary: Vocabulary | None = None
        self.labels: list[str] = context.model_config["labels"]
        if context.model_config["constrained"]:
            from components.models import constrained  # noqa: PLC0415 - loads torch

            self.vocabulary = constrained.vocabulary_of(self.model, self.tokenizer)

    def predict(  # pyright: ignore[reportIncompatibleMethodOverride] - MLflow's is untyped
        self,
        context: PythonModelContext,
        model_input,  # pyright: ignore # noqa: ANN001 - MLflow would make a table of what it types
        params: dict[str, Json] | None = None,
    ) -> dict[str, Json]:
        """Answer a request: ``{"messages": [...], "tools": [...]}``; ``params`` are ignored."""
        import torch

        request: Request = _request(model_input)
        tools = request.get("tools") or []
        prompt = chat_templates.render(self.tokenizer, request["messages"], tools)
        text = prompt.to_text(self.tokenizer)
        inputs = self.tokenizer(text, return_tensors="pt", add_special_tokens=False)
        inputs = inputs.to(self.model.device)
        with torch.inference_mode():
            output = self.model.generate(
                **inputs,
                max_new_tokens=self.max_new_tokens,
                do_sample=False,
                eos_token_id=base.end_tokens(self.model, self.tokenizer),
                logits_processor=self._masks(prompt.form, tools),
            )
        tokens = output[0, inputs["input_ids"].shape[1] :]
        reply = str(self.tokenizer.decode(tokens, skip_special_tokens=True))
        return _completion(dialects.read_answer(prompt.form, reply, offers_tools=bool(tools)))

    def _masks(self, form: Dialect, tools: list[dict[str, Json]]) -> "list[GrammarMasks]":
        if self.vocabulary is None:
            return []
        from components.models.constrained import ConstraintError, GrammarMasks  # noqa: PLC0415

        try:
            if self.labels and not tools:
                grammar = answer_grammar.of_labels(self.labels)
            else:
                grammar = answer_grammar.of_request(form, tools)
            return [GrammarMasks([self.vocabulary.start(grammar)])] if grammar else []
        except (UnsupportedSchemaError, ConstraintError):
            return []  # answered freely, as in the evaluation


def public_key() -> Path:
    """Return the public key that verifies versions.

    Raises:
        FileNotFoundError: There is no key on this machine.
    """
    home = Path(os.environ.get("FLYWHEEL_HOME") or "~/.flywheel").expanduser()
    path = home / "keys" / model_signature.PUBLIC
    if not path.is_file():
        raise FileNotFoundError(
            f"verifying a version: there is no public key at {path}; copy "
            f"keys/{model_signature.PUBLIC} of the home that registered it there"
        )
    return path


def _request(model_input) -> Request:  # pyright: ignore # noqa: ANN001 - as above
    if isinstance(model_input, dict):
        return model_input
    # For its check MLflow turns a request into a table of one row.
    (row,) = model_input.to_dict(orient="records")
    return row


def _completion(answer: Answer) -> dict[str, Json]:
    calls: list[Json] = [
        {
            "id": f"call_{uuid.uuid4().hex[:24]}",
            "type": "function",
            "function": {"name": call.name, "arguments": json.dumps(call.arguments)},
        }
        for call in answer.calls
    ]
    message: dict[str, Json] = {"role": "assistant", "content": answer.text or None}
    if calls:
        message["tool_calls"] = calls
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex[:24]}",
        "object": "chat.completion",
        "choices": [
            {"index": 0, "finish_reason": "tool_calls" if calls else "stop", "message": message}
        ],
    }
