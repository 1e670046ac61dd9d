"""Untrusted text stays text within its paragraph, cell, span or block."""

from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from components.pages import templates
from components.pages.visible_text import visible

HOSTILE = (
    "<script>alert(1)</script>",
    "<!-- a comment",
    "&lt;b&gt; &#124; &amp;",
    "a | b |\n| --- | --- |\n| c",
    "trailing backslash \\",
    "\\| and \\\\| and \\`",
    "```\nfence",
    "`` ` `` `code`",
    "[x](javascript:alert(1)) ![x](https://example.org/x.png)",
    "<https://example.org> https://example.org www.example.org ada@example.org",
    "**bold** __bold__ _it_ snake_case ~~struck~~",
    "# heading",
    "> quoted",
    "- item",
    "+ item",
    "12. item",
    "1) item",
    "---",
    "===",
    "    indented",
    "\u202eturned\x07",
    "{{ 7 * 7 }}{% raw %}",
)
ANYTHING = st.text(st.characters() | st.sampled_from("|`\\<>&[]()!*_~#-+=.:/@ \n"), max_size=30)


def parsed(text: str) -> list[Token]:
    rules = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    return rules.parse(text)


def flat(text: str) -> str:
    return " ".join(visible(text).split())


def kinds_and_text(token: Token) -> tuple[set[str], str]:
    children = token.children or []
    return {child.type for child in children}, "".join(child.content for child in children)


def hostile(test: Callable[[str], None]) -> Callable[[], None]:
    for text in HOSTILE:
        test = example(text)(test)
    return given(ANYTHING)(test)


@hostile
def test_words_are_one_paragraph_of_text(text: str) -> None:
    tokens = parsed(f"{templates.words(text)} end")
    assert [token.type for token in tokens] == ["paragraph_open", "inline", "paragraph_close"]
    assert kinds_and_text(tokens[1]) == ({"text"}, f"{flat(text)} end".strip())


@hostile
def test_words_below_a_paragraph_do_not_make_it_a_heading(text: str) -> None:
    tokens = parsed(f"before\n{templates.words(text)}")
    assert [token.type for token in tokens] == ["paragraph_open", "inline", "paragraph_close"]


@hostile
def test_words_and_code_stay_in_their_cell(text: str) -> None:
    tokens = parsed(templates.table(["head", text], [[text, templates.code(text)], ["a", "b"]]))
    cells = [kinds_and_text(token) for token in tokens if token.type == "inline"]
    assert sum(token.type == "table_open" for token in tokens) == 1
    assert len(cells) == 6
    assert all(kinds <= {"text"} and words == flat(text) for kinds, words in (cells[1], cells[2]))
    assert cells[3][0] == {"code_inline"}


@hostile
def test_a_block_of_code_ends_where_it_should(text: str) -> None:
    tokens = parsed(f"{templates.fence(text)}\n\nend")
    assert tokens[0].type == "fence"
    assert tokens[-2].content == "end"
    assert len(tokens) == 4


@pytest.mark.parametrize("text", ["https://example.org", "www.example.org", "ada@example.org"])
def test_an_address_is_broken_for_renderers_that_link_bare_ones(text: str) -> None:
    (escaped,) = templates.words(text).split()
    assert text not in escaped
    assert kinds_and_text(parsed(escaped)[1]) == ({"text"}, text)
