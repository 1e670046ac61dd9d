"""Render a base's chat template without transformers, byte for byte as transformers does.

The gateway's process must not load transformers (seconds, and hundreds of megabytes); this needs
Jinja and the base's JSON files. Ported from ``transformers.utils.chat_template_utils`` 5.24.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, NoReturn, cast

from jinja2 import Template, nodes, pass_eval_context
from jinja2.exceptions import SecurityError, TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from components.chat import chat_templates, prompt
from components.schema import Json

_NAMED = (
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
)
_REASONING = ("reasoning_content", "thinking", "reasoning")
"""The names of a message's reasoning; templates read the first, gpt-oss' ``thinking``."""


class TemplateFilesError(ValueError):
    """Raised when a base's folder has no chat template that can be read."""


class PlainTemplate:
    """A base's chat template and special tokens; stands in for a tokenizer where text is rendered.

    ``chat_template`` is the template, or templates by name, as in a tokenizer.
    """

    def __init__(
        self, chat_template: str | dict[str, str], special_tokens: Mapping[str, str]
    ) -> None:
        self.chat_template = chat_template
        self.special_tokens = dict(special_tokens)

    def get_chat_template(
        self, chat_template: str | None = None, tools: Sequence[Any] | None = None
    ) -> str:
        """Return the template for a request with or without tools."""
        if chat_template is not None:
            return chat_template
        if isinstance(self.chat_template, str):
            return self.chat_template
        if tools is not None and "tool_use" in self.chat_template:
            return self.chat_template["tool_use"]
        if "default" in self.chat_template:
            return self.chat_template["default"]
        names = ", ".join(sorted(self.chat_template))
        raise ValueError(f"choosing a chat template: there are {names}, expected one named default")

    def apply_chat_template(
        self,
        conversation: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        chat_template: str | None = None,
        tokenize: bool = False,
        add_generation_prompt: bool = False,
    ) -> str:
        """Return the rendered text.

        Raises:
            TemplateError: The template refuses the messages.
            ValueError: There are no messages, or it is to be tokenized.
        """
        if tokenize:
            raise ValueError("rendering a request: this has no tokens, only text")
        if not conversation:
            raise ValueError("rendering a request: it has no messages")
        template = _compile(self.get_chat_template(chat_template, tools))
        return template.render(
            messages=[_message(message) for message in conversation],
            tools=tools,
            documents=None,
            add_generation_prompt=add_generation_prompt,
            **self.special_tokens,
        )


@lru_cache(maxsize=64)
def read(base: Path) -> PlainTemplate:
    """Read the template and the special tokens of a base's folder; cached, since it never changes.

    Raises:
        TemplateFilesError: It has no template, or a file that is not JSON.
    """
    config = _read_json(base / "tokenizer_config.json")
    if "added_tokens_decoder" not in config:
        config |= _read_json(base / "special_tokens_map.json")
    if isinstance(extra := config.get("extra_special_tokens"), dict):
        config |= extra
    tokens = {
        name: text
        for name, value in config.items()
        if name in _NAMED or name.endswith("_token")
        if (text := _token(value)) is not None
    }
    return PlainTemplate(_template(base, config), tokens)


def parity_problem(folder: Path, base: Path) -> str | None:
    """Return why prompts would differ from those of training; ``None`` if they are equal.

    Args:
        folder: An adapter's, with the example prompt that training rendered with transformers.
        base: The base's.
    """
    path = folder / chat_templates.EXAMPLE
    try:
        example = json.loads(path.read_text())
        expected, messages, tools = example["prompt"], example["messages"], example["tools"]
    except FileNotFoundError:
        return f"{folder} has no {chat_templates.EXAMPLE} to compare prompts with; export it again"
    except (ValueError, KeyError, TypeError) as error:
        return f"{path} is damaged ({error!r}); export the adapter again"
    template = read(base)
    rendered = chat_templates.render(as_tokenizer(template), messages, tools)
    actual = rendered.to_text(as_tokenizer(template))
    # Adapters of before end the prompt's thought in their own answers.
    begun = prompt.to_text(as_tokenizer(template), rendered.messages, rendered.tools)
    if expected in (actual, begun):
        return None
    return (
        f"the gateway renders the example of {path} as {actual[:200]!r}, but training rendered "
        f"{expected[:200]!r}; use the base's folder that it was trained with"
    )


def as_tokenizer(template: PlainTemplate) -> Any:  # noqa: ANN401 - stands in for a tokenizer
    """Return the template where ``components.chat`` expects a tokenizer."""
    return template


def _message(message: Mapping[str, Any]) -> dict[str, Any]:
    known = {key: value for key, value in message.items() if value is not None}
    reasoning = next((known[key] for key in _REASONING if key in known), None)
    if reasoning is None:
        return known
    return {"thinking": reasoning, **known, "reasoning_content": reasoning}


def _template(base: Path, config: dict[str, Json]) -> str | dict[str, str]:
    templates: dict[str, str] = {}
    if (path := base / "chat_template.jinja").is_file():
        templates["default"] = path.read_text()
    for path in sorted(base.glob("additional_chat_templates/*.jinja")):
        templates[path.stem] = path.read_text()
    if [*templates] == ["default"]:
        return templates["default"]
    if templates:
        return templates
    match config.get("chat_template"):
        case str(text):
            return text
        case dict(named) if all(isinstance(text, str) for text in named.values()):
            return cast("dict[str, str]", named)
        case list(named):
            return {
                str(entry["name"]): str(entry["template"])
                for entry in named
                if isinstance(entry, dict)
            }
        case _:
            raise TemplateFilesError(
                f"reading {base}: there is no chat_template.jinja, and no `chat_template` in "
                "tokenizer_config.json; choose a base that was trained to chat"
            )


def _read_json(path: Path) -> dict[str, Json]:
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise TemplateFilesError(f"reading {path}: it is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise TemplateFilesError(f"reading {path}: expected an object")
    return content


def _token(value: Json) -> str | None:
    match value:
        case str(text) | {"content": str(text)}:
            return text
        case _:
            return None


class _Generation(Extension):
    """The tag ``{% generation %}``, which marks answers for training and renders its content."""

    tags = {"generation"}  # noqa: RUF012 - as in the class it extends

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_content"), [], [], body).set_lineno(line)

    @pass_eval_context
    def _content(self, context: nodes.EvalContext, caller: Callable[[], str]) -> str:
        return caller()


class _Dict:
    """``dict`` without its attributes, by which a template could leave the sandbox."""

    def __call__(self, *args: Any, **values: Any) -> dict[Any, Any]:  # noqa: ANN401
        return dict(*args, **values)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:  # noqa: ANN401
        return dict.fromkeys(*args)


class _Namespace(Namespace):
    """A namespace without names that begin with an underscore."""

    def __init__(*args: Any, **values: Any) -> None:  # noqa: ANN401 - so that `self` is a name
        self, rest = args[0], args[1:]
        names = dict(*rest, **values)
        for name in names:
            _require_public(name)
        Namespace.__init__(self, names)

    def __setitem__(self, name: str, value: Any) -> None:  # noqa: ANN401
        _require_public(name)
        super().__setitem__(name, value)


def _require_public(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a chat template may not store {name!r} in a namespace")


def _refuse(message: str) -> NoReturn:
    raise TemplateError(message)


def _to_json(
    value: Any,  # noqa: ANN401
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _now(form: str) -> str:
    return datetime.now().strftime(form)


@lru_cache(maxsize=128)
def _compile(template: str) -> Template:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    cast("dict[str, Any]", environment.globals).update(
        raise_exception=_refuse, strftime_now=_now, dict=_Dict(), namespace=_Namespace
    )
    return environment.from_string(template)
