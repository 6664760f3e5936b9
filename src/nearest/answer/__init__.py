"""Answers with evidence: hits to numbered sources, a text whose every sentence cites them, and each citation checked.

context      hits -> sources: duplicates merged, neighbours joined, packed to a budget
extract      with no model: the sentences that answer best, quoted
prompt       with a model: instructions here, everything else between delimiters, as data
support      whether a passage holds what a sentence that cites it says
confidence   the probability that the evidence holds the answer, by coefficients fitted on questions
answering    puts these together; `conversation` rewrites follow-up questions to stand alone
"""

from nearest.answer.answering import Answerer, Asked
from nearest.answer.conversation import Conversation
from nearest.answer.parts import NOT_FOUND, Answer, Citation, Sentence, Source, Sources, Turn

__all__ = [
    "NOT_FOUND",
    "Answer",
    "Answerer",
    "Asked",
    "Citation",
    "Conversation",
    "Sentence",
    "Source",
    "Sources",
    "Turn",
]
