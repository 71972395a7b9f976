"""Sources of a conversion that take options of their own; each is given to `oocload.convert` in place of a path."""

from oocload.convert.sources.rows import RowsSource
from oocload.convert.sources.skipped import Skipped
from oocload.convert.sources.tf_data import TfDatasetSource
from oocload.convert.sources.tfrecord import TFRecordSource
from oocload.convert.sources.torch import TorchSource
from oocload.convert.sources.webdataset import WebDatasetSource

__all__ = ["RowsSource", "Skipped", "TFRecordSource", "TfDatasetSource", "TorchSource", "WebDatasetSource"]
