"""How far captions split without Java are from COCO's own split, and what that does to CIDEr.

``python -m benchmarks.tokeniser`` reads the glosses and examples of WordNet 3.0, 80,000 short
English texts by people (Debian: ``apt-get install wordnet-base``), and needs Java.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

from miniflamingo.evaluation.metrics.cider import cider_d
from miniflamingo.evaluation.metrics.ptb import ptb_words


def synsets(folder: Path) -> list[list[str]]:
    """Definition and examples of each synset that has an example."""
    found = []
    for file in sorted(folder.glob("data.*")):
        for line in file.read_text().splitlines():
            gloss = line.split(" | ", 1)[1].strip() if " | " in line else ""
            examples = re.findall(r'"([^"]+)"', gloss)
            if examples:
                found.append([gloss.split('; "')[0], *examples])
    return found


def java_words(texts: Sequence[str]) -> list[list[str]]:
    """Split by CoreNLP, punctuation dropped, as pycocoevalcap does."""
    captions = {place: [{"caption": text}] for place, text in enumerate(texts)}
    tokenised = PTBTokenizer().tokenize(captions)
    return [tokenised[place][0].split() for place in range(len(texts))]


def shortened(text: str) -> str:
    """A caption that is nearly right: every fifth word left out."""
    return " ".join(word for place, word in enumerate(text.split()) if place % 5 != 3)


def main() -> None:
    """Print how many texts differ, and CIDEr-D by both tokenisers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--wordnet", type=Path, default=Path("/usr/share/wordnet"))
    args = parser.parse_args()
    sets = synsets(args.wordnet)
    texts = [text for each in sets for text in each]
    ours, theirs = [ptb_words(text) for text in texts], java_words(texts)
    differing = sum(one != other for one, other in zip(ours, theirs, strict=True))
    print(f"{len(texts)} texts, {differing} split differently ({differing / len(texts):.3%})")

    sets = [each for each in sets if len(each) > 2]
    spoken = [shortened(each[1]) for each in sets]
    flat = [text for each in sets for text in each]
    scores = []
    for split in (lambda lines: [ptb_words(line) for line in lines], java_words):
        words = iter(split(flat))
        references = [[next(words) for _ in each] for each in sets]
        scores.append(cider_d(split(spoken), references))
    ours_mean, theirs_mean = (100 * sum(each) / len(sets) for each in scores)
    largest = max(abs(one - other) for one, other in zip(*scores, strict=True))
    print(
        f"CIDEr-D times 100 of {len(sets)} captions with {len(flat)} references: "
        f"{ours_mean:.4f} without Java, {theirs_mean:.4f} with; "
        f"largest difference of one caption {100 * largest:.1f}"
    )


if __name__ == "__main__":
    main()
