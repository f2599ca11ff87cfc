"""Words as the published captioning scores count them, without Java.

COCO's evaluation splits captions with Stanford CoreNLP 3.4.1's ``PTBTokenizer`` and drops
punctuation. This restates what that tokeniser does to English sentences; ``docs/evaluation.md``
says how far the two agree on real ones.
"""

from __future__ import annotations

import re

PUNCTUATION = frozenset(["''", "'", "``", "`", '"', ".", "?", "!", ",", ":", "-", "--", "...", ";"])
"""What COCO's evaluation drops. It lists brackets in capitals, so -lrb- survives, here as there."""

SPELLED = str.maketrans(
    {
        "\u2018": "`",  # single quotation marks
        "\u2019": "'",
        "\u201c": '"',  # double ones
        "\u201d": '"',
        "\u2013": "--",
        "\u2014": "--",
        "\u2026": "...",
        "\u00a3": "#",  # pound
        "\u20ac": "$",  # euro
        "\u00a2": "cents",
        "\u00bc": "1/4",
        "\u00bd": "1/2",
        "\u00be": "3/4",
        "\u00ad": None,  # soft hyphen
        "\u00a0": " ",
    }
)
BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}
BRACKET = re.compile(r"[][(){}]")
TWO_WORDS = {
    "cannot": ["can", "not"],
    "gimme": ["gim", "me"],
    "gonna": ["gon", "na"],
    "gotta": ["got", "ta"],
    "lemme": ["lem", "me"],
    "wanna": ["wan", "na"],
    "'tis": ["'t", "is"],
    "'twas": ["'t", "was"],
}

ABBREVIATION = (
    "adj|adm|adv|al|ala|alex|apr|ariz|assn|aug|ave|bhd|blvd|brig|bros|calif|capt|cf|cie|cmdr|co|"
    "col|colo|conn|corp|cos|cpl|ct|dak|dec|dept|det|dr|drs|ens|esq|est|etc|ext|feb|fla|fri|ft|ga|"
    "gen|gov|hon|inc|ind|jan|jos|jr|jul|jun|kan|kans|ky|lt|ltd|maj|mar|md|messrs|mfg|mich|minn|mme|"
    "mo|mon|mont|mr|mrs|ms|mt|mtg|neb|nev|nov|oct|okla|penn|pfc|ph|plc|pres|prof|profs|pte|pty|pvt|"
    "rd|rep|rev|rt|sen|sens|sep|sept|seq|sfc|sgt|spc|sq|sr|st|ste|sys|tel|tenn|thu|thurs|tue|tues|"
    "univ|va|vs|vt|wed|wis|wisc|wm|wyo"
)
CAPITALISED = "Ark|Az|Del|Ill|La|Mass|Miss|Ore|Pa|Tex|Wash"
BEFORE_NUMBERS = "art|ca|fig|figs|no|nos|op|pp|prop"

TOKEN = re.compile(
    rf"""
    (?:https?://|www\.)[^\s"<>()]*[\w/]                    # addresses
  | [\w.+-]+@\w+(?:[.-]\w+)+
  | <[^\s<>]+> | [\#@][^\W\d]\w* | [:;=]-?[()DPp](?!\w)    # tags, names, smileys
  | (?<![\w'])(?:[^\W\d_]\.)+[^\W\d_](?:\.|(?!\w))         # u.s. p.m
  | (?<![\w'-])(?:
        [^\W\d_]                                           # an initial
      | (?i:{ABBREVIATION}) | {CAPITALISED} | (?i:{BEFORE_NUMBERS})(?=\.\s*\d)
    )\.(?!\w)
  | (?<![\w'])[-+]?(?:\d+(?:[.,:/-]\d+)*|\.\d+)(?!-?\w)    # numbers, dates, times
  | (?<!\w)'\d\ds?(?!\w)                                  # '90s
  | '(?i:tis|twas|em|n'|s|m|d|ll|re|ve)(?!\w)
  | [^\W_]+(?:(?:[-/&.'](?=[^\W_])|')[^\W_]*)*             # words, with what may be inside them
  | --+ | [!?]+ | `` | '' | \.\.\.
  | \S
    """,
    re.VERBOSE,
)
CLITIC = re.compile(r"(.+?)(n't|'(?:s|m|d|ll|re|ve)|')")


def split_word(word: str) -> list[str]:
    """Split what is written as one word and counted as two.

    Args:
        word: Lower case.

    >>> split_word("can't"), split_word("dogs'"), split_word("o'clock")
    (['ca', "n't"], ['dogs', "'"], ["o'clock"])
    """
    if word in TWO_WORDS:
        return TWO_WORDS[word]
    match = CLITIC.fullmatch(word)
    if match is None:
        return [BRACKET.sub(lambda bracket: BRACKETS[bracket[0]], word)]
    return [*split_word(match[1]), match[2]]


def ptb_words(text: str) -> list[str]:
    """Lower-case Penn Treebank words without punctuation.

    Args:
        text: One caption.

    >>> ptb_words("A man's dog (Rex) isn't here, is it?")
    ['a', 'man', "'s", 'dog', '-lrb-', 'rex', '-rrb-', 'is', "n't", 'here', 'is', 'it']
    """
    tokens = TOKEN.findall(text.translate(SPELLED))
    words = [word for token in tokens for word in split_word(token.lower())]
    return [word for word in words if word not in PUNCTUATION]
