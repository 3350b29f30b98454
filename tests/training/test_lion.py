"""Lion against its published algorithm."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import Parameter

from tunecast.training.lion import Lion


def test_lion_follows_its_algorithm() -> None:
    rate, decay, (first, second) = 0.01, 0.1, (0.9, 0.99)
    weight = Parameter(torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64))
    optimizer = Lion([weight], lr=rate, weight_decay=decay)
    expected, momentum = np.array([1.0, -2.0, 0.5]), np.zeros(3)
    for step in range(5):
        gradient = np.array([0.3, -1.0, 2.0]) * np.cos(step)
        weight.grad = torch.from_numpy(gradient)
        optimizer.step()
        direction = np.sign(first * momentum + (1 - first) * gradient)
        expected = expected - rate * (direction + decay * expected)
        momentum = second * momentum + (1 - second) * gradient
    np.testing.assert_allclose(weight.detach().numpy(), expected, rtol=1e-12)
