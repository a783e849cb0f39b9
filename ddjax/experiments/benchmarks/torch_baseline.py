"""Baseline of `benchmark.py --baseline=torch`: a plain PyTorch loop over devices that does the same work.

Each device has its own `nn.Module` and optimizer; devices train one after another. The modules have ddjax's
architectures and attribute names, so that a test can copy the parameters and compare a step. Images are channels-first.
"""

import math
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
import torch
from torch import nn
from torch.nn import functional as F

from ddjax.types import Problem


class Linear(nn.Module):
    """Multinomial logistic regression."""

    def __init__(self, input_shape: Sequence[int], classes: int):
        super().__init__()
        self.dense = nn.Linear(math.prod(input_shape), classes)

    def forward(self, x):
        """Compute logits."""
        return self.dense(x.flatten(1))


class MLP(nn.Module):
    """Perceptron with one hidden layer of 128 units."""

    def __init__(self, input_shape: Sequence[int], classes: int):
        super().__init__()
        self.hidden = nn.Linear(math.prod(input_shape), 128)
        self.out = nn.Linear(128, classes)

    def forward(self, x):
        """Compute logits."""
        return self.out(_gelu(self.hidden(x.flatten(1))))


class CNN(nn.Module):
    """Two convolutions, 5×5×16 and 5×5×32, each with an average pool, and a dense layer of 64 units."""

    def __init__(self, input_shape: Sequence[int], classes: int):
        super().__init__()
        channels, height, width = input_shape
        self.first = nn.Conv2d(channels, 16, 5, padding=2)
        self.second = nn.Conv2d(16, 32, 5, padding=2)
        self.hidden = nn.Linear(32 * (height // 4) * (width // 4), 64)
        self.out = nn.Linear(64, classes)

    def forward(self, x):
        """Compute logits."""
        x = F.avg_pool2d(_gelu(self.first(x)), 2)
        x = F.avg_pool2d(_gelu(self.second(x)), 2)
        return self.out(_gelu(self.hidden(x.flatten(1))))


class Block(nn.Module):
    """Two 3×3 convolutions with GroupNorm, and a shortcut around them."""

    def __init__(self, in_features: int, features: int, strides: int):
        super().__init__()
        self.first = nn.Conv2d(in_features, features, 3, strides, padding=1 if strides == 1 else 0, bias=False)
        self.first_norm = nn.GroupNorm(8, features, eps=1e-6)
        self.second = nn.Conv2d(features, features, 3, padding=1, bias=False)
        self.second_norm = nn.GroupNorm(8, features, eps=1e-6)
        changes = strides != 1 or in_features != features
        self.shortcut = nn.Conv2d(in_features, features, 1, strides, bias=False) if changes else None

    def forward(self, x):
        """Compute the features after the block."""
        # If the side of an image is even, Flax pads a strided convolution only on the right and below.
        y = x if self.first.stride == (1, 1) else F.pad(x, (0, 1, 0, 1))
        y = _gelu(self.first_norm(self.first(y)))
        y = self.second_norm(self.second(y))
        return _gelu(y + (x if self.shortcut is None else self.shortcut(x)))


class ResNet14(nn.Module):
    """A 3×3 stem, three stages of two blocks with 16, 32 and 64 channels, and a mean pool."""

    def __init__(self, input_shape: Sequence[int], classes: int):
        super().__init__()
        self.stem = nn.Conv2d(input_shape[0], 16, 3, padding=1, bias=False)
        self.stem_norm = nn.GroupNorm(8, 16, eps=1e-6)
        shapes = ((16, 16, 1), (16, 16, 1), (16, 32, 2), (32, 32, 1), (32, 64, 2), (64, 64, 1))
        self.blocks = nn.Sequential(*(Block(*shape) for shape in shapes))
        self.out = nn.Linear(64, classes)

    def forward(self, x):
        """Compute logits."""
        x = self.blocks(_gelu(self.stem_norm(self.stem(x))))
        return self.out(x.mean((2, 3)))


def _gelu(x):
    return F.gelu(x, approximate="tanh")  # as in Flax


MODELS: dict[str, Any] = {"linear": Linear, "mlp": MLP, "cnn": CNN, "resnet14": ResNet14}


class Device(NamedTuple):
    """One device: its model, optimizer and private data."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    x: torch.Tensor
    y: torch.Tensor


class Network:
    """Devices that run rounds of `work`.

    Args:
      work: `local_sgd`, `distillation` (with the form `gradient` of consensus) or `dsgd`.
      models: architecture of each device.
      problem: problem with the same number of private examples on every device, and images as `[H, W]` or `[H, W, C]`.
      mixing_matrix: `W`, an array or a matrix of `scipy.sparse`.
      classes: number of classes `K`.
      batch_size: private examples per step, drawn with replacement.
      reference_batch_size: reference examples per round, drawn without replacement.
      learning_rate: learning rate of SGD.
      distillation_weight: `ρ`.
      consensus_step_size: `ζ`.
      device: `cpu` or `cuda`.
    """

    def __init__(
        self,
        work: str,
        models: Sequence[str],
        problem: Problem,
        mixing_matrix: Any,
        classes: int,
        *,
        batch_size: int,
        reference_batch_size: int,
        learning_rate: float,
        distillation_weight: float,
        consensus_step_size: float,
        device: str = "cpu",
    ):
        self.work, self.batch_size, self.reference_batch_size = work, batch_size, reference_batch_size
        self.distillation_weight, self.consensus_step_size = distillation_weight, consensus_step_size
        self.on_gpu = device == "cuda"
        self.reference = _images(problem.reference).to(device)
        self.devices = []
        for name, rows in zip(models, np.asarray(problem.private_indices), strict=True):
            model = MODELS[name](self.reference.shape[1:], classes).to(device)
            optimizer = torch.optim.SGD(model.parameters(), learning_rate)
            labels = torch.from_numpy(np.asarray(problem.y)[rows]).long()
            self.devices.append(Device(model, optimizer, _images(problem.x[rows]).to(device), labels.to(device)))
        # A sparse product is faster if few devices are neighbours.
        sparse = scipy.sparse.coo_array(mixing_matrix)
        matrix = torch.sparse_coo_tensor(
            torch.from_numpy(np.stack(sparse.coords)),
            torch.from_numpy(sparse.data),
            sparse.shape,
            dtype=torch.float32,
            check_invariants=True,
        )
        few = sparse.nnz < 0.1 * math.prod(sparse.shape)
        self.mixing_matrix = (matrix.coalesce() if few else matrix.to_dense()).to(device)
        self.estimate = torch.full((len(self.devices), len(self.reference), classes), 1 / classes, device=device)

    def private_rows(self, n: int) -> torch.Tensor:
        """Draw the minibatch of device `n`."""
        y = self.devices[n].y
        return torch.randint(len(y), (self.batch_size,), device=y.device)

    def reference_rows(self) -> torch.Tensor:
        """Draw the reference minibatch that all devices share."""
        return torch.randperm(len(self.reference), device=self.reference.device)[: self.reference_batch_size]

    def round(self) -> None:
        """Run one round of all devices."""
        if self.work == "distillation":
            self._distill()
            return
        for n, (model, optimizer, x, y) in enumerate(self.devices):
            rows = self.private_rows(n)
            _descend(optimizer, F.cross_entropy(model(x[rows]), y[rows]))
        if self.work == "dsgd":
            self._average()

    def _distill(self) -> None:
        rows = self.reference_rows()
        reference, z, soft_decisions = self.reference[rows], self.estimate[:, rows], []
        targets = z.clamp(0, 1)
        for n, (model, optimizer, x, y) in enumerate(self.devices):
            drawn = self.private_rows(n)
            logits = model(torch.cat([x[drawn], reference]))
            s = logits[self.batch_size :].softmax(1)
            distance = (s - targets[n]).square().sum(1).mean()
            loss = F.cross_entropy(logits[: self.batch_size], y[drawn])
            _descend(optimizer, loss + self.distillation_weight * distance)
            soft_decisions.append(s.detach())
        mixed = (self.mixing_matrix @ z.flatten(1)).view_as(z)
        self.estimate[:, rows] = mixed + self.consensus_step_size * (torch.stack(soft_decisions) - z)

    @torch.no_grad()
    def _average(self) -> None:
        stacked = torch.stack([nn.utils.parameters_to_vector(d.model.parameters()) for d in self.devices])
        for device, mixed in zip(self.devices, self.mixing_matrix @ stacked, strict=True):
            nn.utils.vector_to_parameters(mixed, device.model.parameters())

    def run(self, rounds: int) -> float:
        """Run this many rounds, and return the seconds that they take."""
        start = time.perf_counter()
        for _ in range(rounds):
            self.round()
        if self.on_gpu:
            torch.cuda.synchronize()
        return time.perf_counter() - start


def _descend(optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()


def _images(x) -> torch.Tensor:
    """Convert images from `[B, H, W]` or `[B, H, W, C]` to `[B, C, H, W]`."""
    x = torch.from_numpy(np.array(x))
    return x[:, None] if x.ndim == 3 else x.permute(0, 3, 1, 2).contiguous()
