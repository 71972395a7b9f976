"""Sources of a conversion that take options of their own; each is given to `oocload.convert` in place of a path."""

from oocload.convert.sources.csv import CsvSource
from oocload.convert.sources.known import from_path
from oocload.convert.sources.npy_folder import NpyFolderSource
from oocload.convert.sources.rows import RowsSource
from oocload.convert.sources.skipped import Skipped
from oocload.convert.sources.text import Text
from oocload.convert.sources.tfrecord import TFRecordSource

__all__ = [
    "CsvSource",
    "NpyFolderSource",
    "RowsSource",
    "Skipped",
    "TFRecordSource",
    "Text",
    "from_path",
]
