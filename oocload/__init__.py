"""Train on arrays larger than memory, straight from HDF5 and Zarr."""

from oocload import ops, sources
from oocload.adapters.floats import Floats
from oocload.convert.append import Appender
from oocload.convert.convert import convert
from oocload.convert.create import create
from oocload.convert.report import ConversionReport, Progress
from oocload.convert.writer import Writer
from oocload.errors import (
    CheckpointError,
    ChunkError,
    ClosedError,
    ConversionError,
    InvalidArgumentError,
    KeptBatchesWarning,
    MemoryCeilingError,
    MemoryCeilingWarning,
    MissingPackageError,
    OocloadError,
    OocloadWarning,
    ReadAmplificationWarning,
    ShuffleQualityWarning,
    StateError,
    StoreFormatError,
    StoreNotFoundError,
    TargetExistsError,
    TransformError,
    UnknownFieldError,
)
from oocload.loader.images import DecodeImages
from oocload.loader.loader import Loader
from oocload.loader.mix import Mix, mix
from oocload.loader.padding import Pad, Ragged
from oocload.opening import open
from oocload.plan.measure import ShuffleQuality
from oocload.plan.shuffle import Shuffle
from oocload.statistics.result import FieldStatistics, StoreStatistics
from oocload.statistics.stats import stats
from oocload.stores import Store
from oocload.verify.report import BadChunk, VerifyReport
from oocload.verify.verify import verify

__version__ = "0.1.0"

__all__ = [
    "Appender",
    "BadChunk",
    "CheckpointError",
    "ChunkError",
    "ClosedError",
    "ConversionError",
    "ConversionReport",
    "DecodeImages",
    "FieldStatistics",
    "Floats",
    "InvalidArgumentError",
    "KeptBatchesWarning",
    "Loader",
    "MemoryCeilingError",
    "MemoryCeilingWarning",
    "MissingPackageError",
    "Mix",
    "OocloadError",
    "OocloadWarning",
    "Pad",
    "Progress",
    "Ragged",
    "ReadAmplificationWarning",
    "Shuffle",
    "ShuffleQuality",
    "ShuffleQualityWarning",
    "StateError",
    "Store",
    "StoreFormatError",
    "StoreNotFoundError",
    "StoreStatistics",
    "TargetExistsError",
    "TransformError",
    "UnknownFieldError",
    "VerifyReport",
    "Writer",
    "convert",
    "create",
    "mix",
    "open",
    "ops",
    "sources",
    "stats",
    "verify",
]
