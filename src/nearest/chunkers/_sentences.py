"""Where sentences begin, in most languages, without a model.

As in Unicode's rules (UAX #29, sentence boundaries) a sentence ends with its terminal mark and the quotes and
brackets that close after it, and goes on where the next word is in lower case. Beyond them, a blank line ends
one, and an initial (J. Smith) or a common abbreviation does not.
"""

from __future__ import annotations

import re

_CLOSING = "\"'”’»)\\]）」』"
# Runs are taken whole and begun once, so that a text of nothing else costs no more than another; the set at the start
# is what the engine looks for.
_END = re.compile(
    r"[.!?…؟।。！？\n](?:"
    rf"(?<=[.!?…؟।])(?<![.!?…؟।].)(?P<more>[.!?…؟।]*+)[{_CLOSING}]*+(?=\s)"
    rf"|(?<=[。！？])(?<![。！？].)[。！？]*+[{_CLOSING}]*+"
    r"|(?<=\n)(?:[^\S\n]*+\n)++)"
)
# Not those that are words as well (no., max., sec.): two sentences in one are worse than one in two.
_ABBREVIATION = re.compile(
    r"(?<!\w)(?:[^\W\d_]|al|approx|ca|capt|cf|dept|dr|eds?|eqs?|esp|etc|figs?|inc|jr|ltd|messrs|mr|mrs|ms|mt|nos|pp|prof"
    r"|refs?|rev|sgt|sr|st|univ|viz|vol|vols|vs|bzw|evtl|ggf|inkl|nr|usw|mme|mlle|núm|sra|srta)\Z",
    re.IGNORECASE,
)
_LONGEST = 6
_WORD = re.compile(r"\S")
_NEAR = 8  # characters to the next word


def starts(text: str) -> list[int]:
    """Offsets at which the second sentence and those after it begin, or the spaces before them."""
    found = []
    for match in _END.finditer(text):
        end = match.end()
        if (more := match["more"]) is not None:
            after = _WORD.search(text, end, end + _NEAR)
            if after is not None and after[0].islower():
                continue
            if not more and text[match.start()] == "." and _abbreviates(text, match.start()):
                continue
        if end < len(text):
            found.append(end)
    return found


def _abbreviates(text: str, at: int) -> bool:
    """Whether the word before a full stop is an initial or an abbreviation."""
    return _ABBREVIATION.search(text, max(0, at - _LONGEST), at) is not None
