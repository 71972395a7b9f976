"""Sources of a conversion that take options of their own; each is given to `oocload.convert` in place of a path."""

from oocload.convert.sources.arrow import ArrowSource
from oocload.convert.sources.csv import CsvSource
from oocload.convert.sources.skipped import Skipped
from oocload.convert.sources.text import Text

__all__ = ["ArrowSource", "CsvSource", "Skipped", "Text"]
