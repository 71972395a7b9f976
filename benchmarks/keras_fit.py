"""How often ``model.fit(shuffle=True)`` over `to_keras()` has each row decoded per epoch."""

from __future__ import annotations

import os
import warnings
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
from batch_cases import IMAGES, MEMORY, Options, Stores
from lineup import Stored
from overheads import print_header, print_row

import oocload

WORKERS = (1, 4)
N_EPOCHS = 10

Result = dict[str, Any]


def measure(stores: Stores, options: Options) -> list[Result]:
    chosen = [n for n in WORKERS if options.chosen(f"Keras, workers={n}")]
    if not chosen:
        return []
    print_header(f"{N_EPOCHS} epochs of fit(shuffle=True)", "times each row is decoded per epoch")
    warnings.filterwarnings("ignore", "`shuffle=True` was passed", UserWarning)
    stored = stores.labelled("HDF5 gzip-4", IMAGES)
    results = []
    for n_workers in chosen:
        results.append(decoded_by_fit(stored, n_workers))
        print_row(f"workers={n_workers}", f"{results[-1]['decoded_per_epoch']:.3f}")
    return results


def decoded_by_fit(stored: Stored, n_workers: int) -> Result:
    """Train for some epochs; return how often rows were decoded per epoch, and by the end of each."""
    with oocload.Loader(stored.path, stored.dataset.batch_rows, seed=0, memory=MEMORY) as loader:
        epoch_nbytes = len(stored.array) * sum(f.row_nbytes for f in loader.fields.values())

        def decoded() -> float:
            return loader.stats.decoded_bytes / epoch_nbytes

        by_end: list[float] = []
        notes = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: by_end.append(decoded()))
        data = loader.to_keras(workers=n_workers)
        small_model().fit(data, epochs=N_EPOCHS, shuffle=True, verbose=0, callbacks=[notes])
        return {
            "what": f"Keras, workers={n_workers}",
            "n_rows": len(stored.array),
            "window_rows": loader.window_rows,
            "epochs": N_EPOCHS,
            "decoded_by_epoch_end": by_end,
            "decoded_per_epoch": decoded() / N_EPOCHS,
        }


def small_model() -> keras.Model:
    layers = keras.layers
    images = keras.Input(IMAGES.row_shape, dtype="uint8")
    model = keras.Sequential([images, layers.Rescaling(1 / 255), layers.GlobalAveragePooling2D(), layers.Dense(1)])
    model.compile("sgd", "mse")
    return model
