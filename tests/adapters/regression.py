"""A small model that takes fields by their names, as Hugging Face's Trainer gives them, and notes the rows."""

from typing import Any

import torch


class Regression(torch.nn.Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(12, 1)
        self.seen: list[list[int]] = []

    def forward(self, x: Any, y: Any) -> dict[str, Any]:
        self.seen.append(y.tolist())
        logits = self.layer(x * 1e-5)[:, 0]
        return {"loss": ((logits - y * 1e-3) ** 2).mean(), "logits": logits}
