"""Train on arrays larger than memory, straight from HDF5 and Zarr."""

from oocload.errors import (
    ChunkError,
    ClosedError,
    ConversionError,
    InvalidArgumentError,
    KeptBatchesWarning,
    MemoryCeilingError,
    MissingPackageError,
    OocloadError,
    OocloadWarning,
    ReadAmplificationWarning,
    ShuffleQualityWarning,
    StateError,
    StoreFormatError,
    StoreNotFoundError,
    TargetExistsError,
    UnknownFieldError,
)
from oocload.loader.loader import Loader
from oocload.plan.shuffle import Shuffle
from oocload.stores import open
