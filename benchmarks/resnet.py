"""ResNet-50 in plain PyTorch (He et al. 2016, table 1; strides in the 3 × 3 convolutions, as everybody trains it)."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

_STAGES = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))  # channels, blocks, stride of the first
_EXPANSION = 4


def _convolution(n_in: int, n_out: int, size: int, stride: int = 1) -> nn.Sequential:
    layer = nn.Conv2d(n_in, n_out, size, stride, padding=size // 2, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(n_out))


class _Bottleneck(nn.Module):
    def __init__(self, n_in: int, width: int, stride: int) -> None:
        super().__init__()
        n_out = width * _EXPANSION
        self.body = nn.Sequential(
            _convolution(n_in, width, 1),
            nn.ReLU(inplace=True),
            _convolution(width, width, 3, stride),
            nn.ReLU(inplace=True),
            _convolution(width, n_out, 1),
        )
        self.shortcut = nn.Identity() if n_in == n_out else _convolution(n_in, n_out, 1, stride)

    def forward(self, x: Any) -> Any:
        return torch.relu(self.body(x) + self.shortcut(x))


def resnet50(n_classes: int) -> nn.Module:
    """Return the network for images of three channels: 25.6 million weights for 1,000 classes."""
    layers: list[nn.Module] = [_convolution(3, 64, 7, 2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, padding=1)]
    n_in = 64
    for width, n_blocks, stride in _STAGES:
        for number in range(n_blocks):
            layers.append(_Bottleneck(n_in, width, stride if number == 0 else 1))
            n_in = width * _EXPANSION
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(n_in, n_classes))
