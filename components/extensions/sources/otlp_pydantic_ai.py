"""The tools that Pydantic AI has in an attribute of its own."""

from components.collect.sources import canonical, fields
from components.collect.sources.fields import Obj
from components.schema import Json

PARAMETERS = "model_request_parameters"


def to_genai(attributes: Obj) -> Obj:
    """Return the attributes with the tools as GenAI has them; others are unchanged."""
    if PARAMETERS not in attributes or "gen_ai.tool.definitions" in attributes:
        return attributes
    parameters = fields.unpacked_object(attributes, PARAMETERS)
    tools: list[Json] = [
        _tool(tool, path)
        for key in ("function_tools", "output_tools")
        for path, tool in fields.objects(fields.optional_array(parameters, key), key)
    ]
    return {**attributes, "gen_ai.tool.definitions": tools} if tools else attributes


def _tool(tool: Obj, at: str) -> Json:
    name = fields.require_text(tool, "name", at)
    return canonical.tool(name, tool.get("description"), tool.get("parameters_json_schema"))
