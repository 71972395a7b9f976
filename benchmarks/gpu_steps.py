"""What is done with each batch of `gpu.py`: nothing, or a step of training by PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from resnet import resnet50
from torch import nn

N_CLASSES = 1000

Step = Callable[[Any, Any], object]  # (images, labels) on the device


def no_op(x: Any, y: Any) -> None:
    """Touch nothing."""


def small_cnn() -> nn.Module:
    """Return four convolutions of stride 2 and a linear layer."""
    layers: list[nn.Module] = []
    for n_in, n_out in ((3, 32), (32, 64), (64, 128), (128, 256)):
        layers += [nn.Conv2d(n_in, n_out, 3, 2, padding=1), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(256, N_CLASSES))


MODELS: dict[str, Callable[[], nn.Module]] = {"small CNN": small_cnn, "ResNet-50": lambda: resnet50(N_CLASSES)}


def training(model: nn.Module, device: Any) -> Step:
    """Return a step of SGD on images of floats; in bfloat16 on a GPU, which is made for it."""
    on_gpu = device.type == "cuda"
    layout = torch.channels_last if on_gpu else torch.contiguous_format
    model = model.to(device, memory_format=layout)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)

    def step(x: Any, y: Any) -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=on_gpu):
            scores = model(x.contiguous(memory_format=layout))
        optimizer.zero_grad()
        nn.functional.cross_entropy(scores.float(), y.long() % N_CLASSES).backward()
        optimizer.step()

    return step
