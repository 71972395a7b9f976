"""What `test_ranks_torch.py` runs as one of two ranks, in a process of its own.

Arguments: the name of a function here, a folder of stores, a file or port by which the ranks meet, and the rank.
Prints what it saw.
"""

import json
import os
import sys
import warnings
from typing import Any


def loops(folder: str, meet: str, rank: int) -> Any:
    """Loops of one's own: which rows they see, and a model under DistributedDataParallel."""
    import torch

    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{meet}", rank=rank, world_size=2)
    told = {"rows": _rows(folder), "parallel": _parallel(folder)}
    torch.distributed.destroy_process_group()
    return told


def _rows(folder: str) -> Any:
    """Two epochs of two stores, in each way to divide rows that two does not: the rows, by rank as the loader says."""
    from torch.utils.data import DataLoader

    import oocload

    told: dict[str, Any] = {}
    for name in ("odd.h5", "even.zarr"):
        for uneven in ("pad", "drop"):
            with oocload.Loader(f"{folder}/{name}", 32, seed=0, uneven=uneven) as loader:
                dataset = loader.to_torch()
                ways = (dataset, DataLoader(dataset, batch_size=None))
                told[f"{name} {uneven}"] = [[y.tolist() for _, y in way] for way in ways]
    return told


def _parallel(folder: str) -> Any:
    """Two epochs of DistributedDataParallel: the weights at the end, and the steps."""
    import torch
    from torch.utils.data import DataLoader

    import oocload

    torch.manual_seed(torch.distributed.get_rank())
    model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(12, 1))
    optimizer = torch.optim.SGD(model.parameters(), 1e-2)
    n_steps = 0
    with oocload.Loader(f"{folder}/odd.h5", 32, seed=0) as loader:
        batches = DataLoader(loader.to_torch(), batch_size=None)
        for _ in range(2):
            for x, y in batches:
                loss = ((model(x * 1e-5)[:, 0] - y * 1e-3) ** 2).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                n_steps += 1
    return {"weights": model.module.weight.tolist(), "steps": n_steps}


def trainer(folder: str, meet: str, rank: int) -> Any:
    """Hugging Face's Trainer, which finds the ranks; and accelerate, which must not divide a rank's rows."""
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="localhost", MASTER_PORT=meet)
    import accelerate
    import torch
    import transformers
    from torch.utils.data import DataLoader

    import oocload
    from tests.adapters.regression import Regression

    arguments = transformers.TrainingArguments(
        folder, use_cpu=True, report_to=[], disable_tqdm=True, num_train_epochs=2, save_strategy="no"
    )
    told: dict[str, Any] = {}
    with oocload.Loader(f"{folder}/odd.h5", 32, x=["x", "y"], seed=0) as loader:

        class Trainer(transformers.Trainer):  # type: ignore[misc]
            def get_train_dataloader(self) -> Any:
                return DataLoader(loader.to_torch(), batch_size=None)

        model = Regression()
        Trainer(model, arguments).train()
        told["rows"], told["weights"] = model.seen, model.layer.weight.tolist()
        prepared = accelerate.Accelerator(cpu=True).prepare(DataLoader(loader.to_torch(), batch_size=None))
        try:
            next(iter(prepared))
        except oocload.errors.InvalidArgumentError as exc:
            told["refused"] = str(exc)
    torch.distributed.destroy_process_group()
    return told


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    name, folder, meet, rank = sys.argv[1:]
    print("told", json.dumps({"loops": loops, "trainer": trainer}[name](folder, meet, int(rank))))
