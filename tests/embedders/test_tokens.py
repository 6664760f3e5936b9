"""The estimating tokenizer: it counts on the high side mostly, cuts where it says, and chunkers can work with it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nearest import chunkers
from nearest.contract import token_counts
from nearest.embedders import _tokens
from nearest.errors import ModelError

# Texts and their tokens in OpenAI's cl100k_base, counted once with tiktoken 0.14.
COUNTED = {
    "Retrieval augmented generation grounds answers in documents, and cites them.": 14,
    "def estimate(tokens: int) -> float:\n    return tokens * self.price / 1e6\n": 21,
    "Быстрая коричневая лиса перепрыгнула через ленивую собаку.": 31,
    "我们测量了嵌入模型的速度和召回率。": 20,
    "😀🎉🚀 done 👍🏽": 14,
    "2024-05-31T12:00:00Z 10.0.0.1 0xdeadbeef": 27,
}


@pytest.mark.parametrize(("text", "tokens"), COUNTED.items())
def test_it_counts_seldom_less_and_never_much_less(text: str, tokens: int) -> None:
    (counted,) = token_counts(_tokens.estimate(), [text])
    assert 0.8 * tokens <= counted <= 2 * tokens


@given(st.text(min_size=1), st.integers(1, 40))
def test_a_cut_text_is_the_longest_beginning_that_fits(text: str, limit: int) -> None:
    tokenizer = _tokens.estimate()
    cut = _tokens.cut(tokenizer, text, limit)
    assert text.startswith(cut)
    (whole,), (counted,) = token_counts(tokenizer, [text]), token_counts(tokenizer, [cut])
    assert cut == text if whole <= limit else counted >= 1
    # Pieces of several tokens (an emoji) are not torn, so the last may be over by those.
    assert counted <= limit + 3


@given(st.text())
def test_it_never_counts_less_for_more_text(text: str) -> None:
    tokenizer = _tokens.estimate()
    assert token_counts(tokenizer, [text])[0] <= token_counts(tokenizer, [text + " more"])[0]


def test_chunks_hold_the_size_that_was_asked(shared_data: Path) -> None:
    text = (shared_data / "peps" / "files" / "pep-0008.rst").read_text()
    tokenizer = _tokens.estimate()
    chunks = chunkers.make("recursive:size=100", tokenizer).chunk(text)
    assert max(token_counts(tokenizer, [chunk.text for chunk in chunks])) <= 100
    assert len(chunks) > 50


def test_a_tokenizer_that_is_named(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    _tokens.estimate().save(str(path))
    assert token_counts(_tokens.load(str(path)), ["one two"]) == [2]
    assert token_counts(_tokens.load(str(tmp_path)), ["one two"]) == [2]
    with pytest.raises(ModelError, match="there is no tokenizer"):
        _tokens.load(str(tmp_path / "other.json"))
    path.write_text("{}")
    with pytest.raises(ModelError, match="cannot load"):
        _tokens.load(str(path))


def test_many_texts_are_counted_some_at_a_time() -> None:
    """Encodings of a hundred megabytes would be gigabytes, and Ctrl-C would wait for them."""
    most = 0
    inner = _tokens.estimate()

    class Counting:
        def encode_batch_fast(self, texts: list[str], *, add_special_tokens: bool) -> Sequence[object]:
            nonlocal most
            most = max(most, len(texts))
            return inner.encode_batch_fast(texts, add_special_tokens=add_special_tokens)

    texts = [("word " * (i % 7 + 1)).strip() for i in range(5000)]
    assert token_counts(Counting(), texts) == [i % 7 + 1 for i in range(5000)]  # type: ignore[arg-type]
    assert most <= 1024
