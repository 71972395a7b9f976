"""Messages for the recipes on text, written piece by piece, so that they may be larger than memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np

N_WORDS = 4000
PIECE_ROWS = 2048


def make_messages(folder: Path, n_rows: int, mean_words: int = 120, seed: int = 0) -> Path:
    """Write messages.tsv, with a header: a label, "ham" or "spam", and a text, which tells a little of it."""
    rng = np.random.default_rng(seed)
    syllables = np.array([a + b for a in "bdfgklmnprstvz" for b in "aeiou"])
    words = np.array(["".join(syllables[rng.integers(0, len(syllables), 3)]) for _ in range(N_WORDS)])
    path = folder / "messages.tsv"
    with path.open("w") as file:
        file.write("label\ttext\n")
        for start in range(0, n_rows, PIECE_ROWS):
            spam = rng.random(min(PIECE_ROWS, n_rows - start)) < 0.3
            ends = np.cumsum(rng.integers(mean_words // 2, mean_words * 3 // 2 + 1, len(spam)))
            lengths = np.diff(ends, prepend=0)
            chosen = (rng.random(ends[-1]) ** 3 * N_WORDS).astype(int)  # a few words are frequent
            told = np.repeat(spam, lengths) & (rng.random(ends[-1]) < 0.05)
            chosen[told] = N_WORDS - 1 - chosen[told]  # and in spam, those that are rare elsewhere
            for label, text in zip(spam, np.split(words[chosen], ends[:-1]), strict=True):
                file.write(f"{'spam' if label else 'ham'}\t{' '.join(text)}\n")
    return path
