"""What `test_strategies.py` runs in processes of their own: ``tf.distribute`` must come before TensorFlow's start.

Arguments: a store, the name of a function here, and (for one of two workers) rank and port. Prints the rows seen.
"""

import json
import os
import sys
import warnings
from typing import Any


def mirrored(path: str) -> Any:
    """Two replicas in one process: what `fit` and a loop of one's own see of an epoch."""
    import tensorflow as tf

    import oocload
    from tests.adapters.frameworks import small_model

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    warnings.filterwarnings("ignore", "`shuffle=True` was passed", UserWarning)
    told = {}
    with oocload.Loader(path, 32, seed=0, shuffle=oocload.Shuffle(window_rows=500)) as loader:
        for way in ("to_tf", "to_keras"):
            with strategy.scope():
                model = small_model()
            history = model.fit(getattr(loader, way)(), epochs=2, verbose=0).history
            told[way] = {name: history[name] for name in ("rows", "total", "hashed")}
        rows: list[int] = []
        for _, y in strategy.experimental_distribute_dataset(loader.to_tf()):
            rows += [int(row) for part in strategy.experimental_local_results(y) for row in part]
        told["loop"] = sorted(rows)
    return told


def worker(path: str, rank: int, port: int) -> Any:
    """One of two workers, each with its rank's rows: what it sees of an epoch, by both ways of distributing."""
    cluster = {"worker": [f"localhost:{port}", f"localhost:{port + 1}"]}
    os.environ["TF_CONFIG"] = json.dumps({"cluster": cluster, "task": {"type": "worker", "index": rank}})
    import tensorflow as tf

    import oocload

    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    told: dict[str, Any] = {}
    with oocload.Loader(path, 32, seed=0, shuffle=oocload.Shuffle(window_rows=500)) as loader:
        told["world_size"], told["rank"] = loader.world_size, rank
        by_function = strategy.distribute_datasets_from_function(lambda context: loader.to_tf())
        divided = strategy.experimental_distribute_dataset(loader.to_tf())

        @tf.function
        def step(y: Any) -> Any:
            total = strategy.run(lambda part: tf.reduce_sum(part), args=(y,))
            return strategy.reduce("SUM", total, axis=None)

        for name, dataset in (("by_function", by_function), ("divided", divided)):
            rows: list[int] = []
            sizes, totals = [], 0
            for _, y in dataset:
                local = [int(row) for part in strategy.experimental_local_results(y) for row in part]
                rows += local
                sizes.append(len(local))
                totals += int(step(y))
            told[name] = {"rows": rows, "sizes": sizes, "total": totals}
    return told


if __name__ == "__main__":
    path, name, *numbers = sys.argv[1:]
    print("told", json.dumps({"mirrored": mirrored, "worker": worker}[name](path, *map(int, numbers))))
