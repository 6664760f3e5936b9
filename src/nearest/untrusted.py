"""Other people's text on its way into a prompt: what could be read as more than text is taken out.

That is the marks of chat templates, and characters that no reader sees. Delimiters that a text cannot know, and
instructions not to obey it, are the prompts' own business (`answer/prompt.py`, `rerankers/llm.py`).
"""

from __future__ import annotations

import re

_TEMPLATE_MARKS = re.compile(
    r"<\|[^<>|]{1,40}\|>|<(?:start|end)_of_turn>|\[/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS)\]|<</?SYS>>|</?s>"
    r"|<[｜|][^<>｜|]{1,40}[｜|]>",
    re.IGNORECASE,
)
# Tags (U+E0000 to U+E007F), zero-width and direction marks, and control characters but tab and line end. The
# joiners U+200C and U+200D stay: Persian and Indic scripts need them.
_UNSEEN = re.compile("[\U000e0000-\U000e007f\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff\x00-\x08\x0b-\x1f\x7f]")


def harmless(text: str) -> str:
    """A text without what could be read as more than text: see the head of the file."""
    return _TEMPLATE_MARKS.sub(lambda mark: " ".join(mark[0]), _UNSEEN.sub("", text))
