"""Measures of answers with citations, after ALCE (Gao et al., EMNLP 2023). Pure functions.

An answer is given as its sentences, and a sentence as its citations: the document that each names, and whether its
passage was found to support the sentence. Each measure is 0 to 1.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple


class Cited(NamedTuple):
    document: str
    supported: bool


Sentences = Sequence[Sequence[Cited]]


def support(answer: Sentences) -> float:
    """The share of the sentences that a citation supports: ALCE's citation recall.

    Raises ValueError without sentences.
    """
    if not answer:
        raise ValueError("an answer without sentences has no support")
    return sum(any(c.supported for c in sentence) for sentence in answer) / len(answer)


def citation_precision(answer: Sentences) -> float:
    """The share of the citations that support their sentence; 0 for an answer that cites nothing."""
    cited = [citation for sentence in answer for citation in sentence]
    return sum(c.supported for c in cited) / len(cited) if cited else 0.0


def judged_precision(answer: Sentences, relevant: Collection[str]) -> float:
    """The share of the documents cited that are relevant by judgement; 0 for an answer that cites nothing."""
    cited = {citation.document for sentence in answer for citation in sentence}
    return len(cited & set(relevant)) / len(cited) if cited else 0.0


def judged_recall(answer: Sentences, relevant: Collection[str]) -> float:
    """The share of the relevant documents that are cited. Raises ValueError if none is relevant."""
    if not relevant:
        raise ValueError("no document is relevant")
    cited = {citation.document for sentence in answer for citation in sentence}
    return len(cited & set(relevant)) / len(set(relevant))
