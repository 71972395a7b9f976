"""What goes with ``loader.to_keras()`` and ``loader.to_tf()`` in ``model.fit``: callbacks. Needs Keras."""

from oocload.adapters.keras import KerasDataset
from oocload.adapters.keras_callbacks import Checkpoint, DataWait

__all__ = ["Checkpoint", "DataWait", "KerasDataset"]
