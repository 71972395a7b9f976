"""How text becomes numbers of tokens: `Text`, what a user says of a column."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from oocload.errors import InvalidArgumentError
from oocload.units import true_or_false, whole_number

PADDING, UNKNOWN = 0, 1
SPECIAL = ("", "[UNK]")
"""Words of the first two numbers of a vocabulary, as Keras' TextVectorization has them."""

Kind = Literal["words", "characters", "hashing"]
Split = Callable[[str], Sequence[str] | Sequence[int]]


@dataclass(frozen=True, slots=True)
class Text:
    """A column of text that becomes numbers of tokens, int32: 0 is padding, 1 an unknown token, words follow from 2.

    Parameters
    ----------
    tokens
        ``"words"``: what stands between white space. ``"characters"``: Unicode code points. ``"hashing"``: words, each
        the number ``1 + crc32(word) % (n_buckets - 1)``, without a vocabulary. Or a function of a text that returns its
        tokens, or their numbers, which are then kept as they are.
    vocabulary
        The tokens that have numbers, from 2 on; it may begin with ``""`` and ``"[UNK]"``, as a stored one does. None
        finds them in a first pass over the column: in order of falling frequency, and among equals sorted. All
        different tokens are held meanwhile, beside what ``memory`` allows.
    max_tokens
        The most that the vocabulary may hold, with the two special ones; None for all.
    n_buckets
        Of ``"hashing"``: numbers are below it.
    lowercase
        Whether text becomes lowercase first; a function gets it as it is.
    maxlen
        Length of every row: longer ones are cut at their end, shorter ones filled with 0. None keeps rows as long as
        they are.

    Raises
    ------
    InvalidArgumentError
        If one of them breaks its rule.

    Examples
    --------
    >>> import oocload
    >>> oocload.sources.Text("characters", maxlen=160).maxlen
    160

    """

    tokens: Kind | Split = "words"
    vocabulary: Sequence[str] | None = None
    max_tokens: int | None = None
    n_buckets: int = 2**16
    lowercase: bool = True
    maxlen: int | None = None

    def __post_init__(self) -> None:
        if not callable(self.tokens) and self.tokens not in get_args(Kind):
            raise InvalidArgumentError(
                f"tokens must be 'words', 'characters', 'hashing' or a function, got {self.tokens!r}"
            )
        true_or_false("lowercase", self.lowercase)
        whole_number("n_buckets", self.n_buckets, 2)
        for name, least in (("max_tokens", 3), ("maxlen", 1)):
            if getattr(self, name) is not None:
                whole_number(name, getattr(self, name), least)
        self._check_vocabulary()

    def _check_vocabulary(self) -> None:
        if self.vocabulary is None:
            return
        words = self.vocabulary
        if isinstance(words, str) or not isinstance(words, Sequence) or not all(isinstance(w, str) for w in words):
            raise InvalidArgumentError(f"vocabulary must be a list of words, got {self.vocabulary!r}")
        if self.tokens == "hashing":
            raise InvalidArgumentError("vocabulary must be left out with tokens='hashing', which has none")
        words = self.known or ()
        if len(set(words)) < len(words):
            twice = next(word for i, word in enumerate(words) if word in words[:i])
            raise InvalidArgumentError(f"vocabulary must hold each word once, got {twice!r} twice")
        if self.max_tokens is not None and len(words) > self.max_tokens:
            raise InvalidArgumentError(
                f"vocabulary must hold at most max_tokens={self.max_tokens} words with the two special ones, "
                f"got {len(words)}"
            )

    @property
    def known(self) -> tuple[str, ...] | None:
        """The whole vocabulary where it was given."""
        if self.vocabulary is None:
            return None
        words = tuple(self.vocabulary)
        return words if words[:2] == SPECIAL else (*SPECIAL, *words)

    def describe(self) -> dict[str, Any]:
        """Return what tells this from another, as JSON has it; of a function, its name."""
        tokens = self.tokens if isinstance(self.tokens, str) else qualified_name(self.tokens)
        known = None if self.vocabulary is None else list(self.vocabulary)
        return {
            "tokens": tokens,
            "vocabulary": known,
            "max_tokens": self.max_tokens,
            "n_buckets": self.n_buckets,
            "lowercase": self.lowercase,
            "maxlen": self.maxlen,
        }


def qualified_name(function: Callable[..., Any]) -> str:
    """Return the name by which a function is told from others; that it is the same is no proof."""
    kind = type(function)
    name = getattr(function, "__qualname__", f"{kind.__module__}.{kind.__qualname__}")
    return f"{getattr(function, '__module__', '')}.{name}"
