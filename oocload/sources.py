"""Sources of a conversion that take options of their own; each is given to `oocload.convert` in place of a path."""

from oocload.convert.sources.image_folder import ImageFolderSource
from oocload.convert.sources.known import from_path
from oocload.convert.sources.npy_folder import NpyFolderSource
from oocload.convert.sources.skipped import Skipped

__all__ = ["ImageFolderSource", "NpyFolderSource", "Skipped", "from_path"]
