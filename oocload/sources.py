"""Sources of a conversion that take options of their own; each is given to `oocload.convert` in place of a path."""

from oocload.convert.sources.anndata import AnnDataSource
from oocload.convert.sources.arrow import ArrowSource
from oocload.convert.sources.csv import CsvSource
from oocload.convert.sources.hugging_face import HuggingFaceSource, HuggingFaceStream
from oocload.convert.sources.image_folder import ImageFolderSource
from oocload.convert.sources.known import from_path
from oocload.convert.sources.npy_folder import NpyFolderSource
from oocload.convert.sources.rows import RowsSource
from oocload.convert.sources.skipped import Skipped
from oocload.convert.sources.text import Text
from oocload.convert.sources.tf_data import TfDatasetSource
from oocload.convert.sources.tfrecord import TFRecordSource
from oocload.convert.sources.torch import TorchSource
from oocload.convert.sources.webdataset import WebDatasetSource
from oocload.convert.sources.xarray import XarraySource

__all__ = [
    "AnnDataSource",
    "ArrowSource",
    "CsvSource",
    "HuggingFaceSource",
    "HuggingFaceStream",
    "ImageFolderSource",
    "NpyFolderSource",
    "RowsSource",
    "Skipped",
    "TFRecordSource",
    "Text",
    "TfDatasetSource",
    "TorchSource",
    "WebDatasetSource",
    "XarraySource",
    "from_path",
]
