"""Operations on the rows of a field, declared to a `Loader` and done while rows are written to their places.

``Loader(..., ops={"x": [ops.crop(24, 24), ops.normalize(mean, std), ops.transpose("channels_first")]})``: each row
passes through them in order. They become one pass over the data: cuts and transpositions are views of the decoded rows,
and `cast`, `scale` and `normalize` one multiplication and one addition.
"""

from oocload.ops.base import Op
from oocload.ops.geometry import crop, transpose
from oocload.ops.labels import one_hot
from oocload.ops.values import cast, normalize, scale

__all__ = ["Op", "cast", "crop", "normalize", "one_hot", "scale", "transpose"]
