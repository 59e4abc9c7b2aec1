"""A network so small that a checkpoint of it can be committed; teacher and student of make.py."""

import os
import time

import torch
from torch import nn


def network(num_classes: int) -> nn.Module:
    """Weights are exact fractions, so they are the same on every machine."""
    model = nn.Sequential(
        nn.Conv2d(3, 6, 8, stride=8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        Slow(),
        nn.Linear(24, num_classes),
    )
    with torch.no_grad():
        for weights in model.parameters():
            weights.copy_((torch.arange(weights.numel()) * 37 % 101 - 50).view(weights.shape) / 256)
    model.preprocess = {"size": 16, "mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)}
    return model


class Slow(nn.Module):
    """Waits for TINY_PAUSE seconds in every forward pass, so that a job can be killed in its middle."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        time.sleep(float(os.environ.get("TINY_PAUSE", 0)))
        return x
