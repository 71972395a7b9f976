"""Messages of made words, written piece by piece, so that the file may be larger than memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np

COMMON_WORDS, TOPIC_WORDS = 1000, 200
OF_TOPIC = 0.15  # share of words that tell the topic
PIECE_ROWS = 4096


def make_messages(folder: Path, n_rows: int, topics: tuple[str, ...], n_words: tuple[int, int], seed: int = 0) -> Path:
    """Write messages.tsv, of the columns `label` (a topic) and `text`: words of all topics, and some of that one."""
    rng = np.random.default_rng(seed)
    syllables = [a + b for a in "bdfgklmnprst" for b in "aeiou"]
    words = rng.permutation(np.array([a + b for a in syllables for b in syllables], object))
    with open(folder / "messages.tsv", "w", encoding="utf-8") as file:
        file.write("label\ttext\n")
        for start in range(0, n_rows, PIECE_ROWS):
            topic = rng.integers(0, len(topics), min(PIECE_ROWS, n_rows - start))
            lengths = rng.integers(*n_words, len(topic), endpoint=True)
            topic_of_word = np.repeat(topic, lengths)
            common = rng.integers(0, COMMON_WORDS, len(topic_of_word))
            telling = COMMON_WORDS + topic_of_word * TOPIC_WORDS + rng.integers(0, TOPIC_WORDS, len(topic_of_word))
            chosen = words[np.where(rng.random(len(common)) < OF_TOPIC, telling, common)]
            for number, message in zip(topic, np.split(chosen, np.cumsum(lengths)[:-1]), strict=True):
                file.write(f"{topics[number]}\t{' '.join(message)}\n")
    return folder / "messages.tsv"
