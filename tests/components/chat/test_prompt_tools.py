"""Caching the tools' text does not change a prompt."""

import json

from hypothesis import given
from hypothesis import strategies as st

from components.chat import prompt
from components.schema import Json
from tests.support import logs

roles = st.sampled_from(["system", "developer", "user", "assistant", "tool"])
messages = st.lists(
    st.fixed_dictionaries({"role": roles, "content": st.none() | st.text("ab \n", max_size=5)})
)
tools = st.lists(st.sampled_from([logs.WEATHER, logs.tool("news"), logs.tool("maps")]))


@given(messages, tools)
def test_a_prompt_with_cached_tools_is_the_uncached_prompt(
    messages: list[dict[str, Json]], tools: list[dict[str, Json]]
):
    expected = prompt.render_prompt(messages, tools)
    for _ in range(2):
        assert prompt.render_prompt_with_tools(messages, json.dumps(tools)) == expected
