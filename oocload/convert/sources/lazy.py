"""Sources that are made when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from oocload.convert.sources.base import FieldSource


class LazySources(Mapping[str, FieldSource]):
    """Field → source, of which only those are made that are asked for."""

    def __init__(self, makers: Mapping[str, Callable[[], FieldSource]]) -> None:
        self._makers = dict(makers)

    def __getitem__(self, name: str) -> FieldSource:
        return self._makers[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._makers)

    def __len__(self) -> int:
        return len(self._makers)
