"""Gaussian processes: trained with gpytorch, evaluated with numpy.

``gp`` has a length for every feature (automatic relevance determination); ``deep-kernel`` is the reference of
Quick-Tune (arXiv 2306.03828): the kernel looks at what a small network makes of the features. As there, the
marginal likelihood is maximised on another small part of the examples in every step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from tunecast.predictor.examples import Examples
from tunecast.predictor.regressors.base import LEAST_VARIANCE, Arrays, Family, Regressor, Scaling

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_ROWS = 1000
"""Examples that a process keeps: what limits the prior file's size."""
BATCH_ROWS = 128
"""Examples of which the marginal likelihood is maximised at a time, others in each step."""
TIMES_DRAWN = 12
"""How often each example is drawn on average, within the limits of steps."""
LEAST_STEPS, MOST_STEPS = 100, 800
RATE = 0.1
NETWORK_RATE = 0.01
HIDDEN, ENCODED = 32, 8


class ProcessModel(Regressor):
    """The posterior of a Gaussian process with a Matérn kernel of order 5/2.

    Args:
        arrays: ``mean`` and ``stretch`` of the scaling; ``w1, b1, w2, b2`` of the network, absent without
            one; ``lengths`` of what the kernel looks at; ``inputs``, scaled, encoded and divided by lengths;
            ``alpha``, the covariance's inverse times centred targets; ``inverse``, the inverse of the
            Cholesky factor; ``numbers``: constant mean, kernel variance, noise variance.
    """

    def __init__(self, arrays: Arrays) -> None:
        self._arrays = dict(arrays)
        found = {name: np.asarray(values, np.float32) for name, values in arrays.items()}
        self._found = found
        self._scaling = Scaling(np.asarray(arrays["mean"], float), np.asarray(arrays["stretch"], float))
        self._constant, self._kernel, self._noise = map(float, found["numbers"])
        self._squares = (found["inputs"] ** 2).sum(axis=1)

    def predict(self, features: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The posterior's mean and variance, noise included."""
        found = self._found
        seen = self._scaling(features).astype(np.float32)
        if "w1" in found:
            seen = np.tanh(seen @ found["w1"].T + found["b1"]) @ found["w2"].T + found["b2"]
        seen = seen / found["lengths"]
        squared = (seen**2).sum(axis=1)[:, None] + self._squares - 2.0 * seen @ found["inputs"].T
        distance = np.sqrt(5.0 * np.maximum(squared, 0.0))
        covariance = self._kernel * (1.0 + distance + distance**2 / 3.0) * np.exp(-distance)
        mean = self._constant + covariance @ found["alpha"]
        explained = ((covariance @ found["inverse"].T) ** 2).sum(axis=1)
        variance = np.maximum(self._kernel - explained, 0.0) + self._noise
        return mean.astype(float), np.maximum(variance.astype(float), LEAST_VARIANCE)

    def arrays(self) -> Arrays:
        """As given."""
        return self._arrays

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> ProcessModel:
        """Put together what :meth:`arrays` took apart."""
        return cls(arrays)


class GaussianProcess(Family):
    """A Gaussian process with a length for every feature."""

    name: ClassVar[str] = "gp"
    regressor: ClassVar[type[Regressor]] = ProcessModel
    encodes: ClassVar[bool] = False

    def fit(self, examples: Examples, seed: int) -> ProcessModel:
        """Maximise the marginal likelihood on all examples, and condition on a balanced part of them."""
        kept = _balanced(examples, MOST_ROWS, seed)
        scaling = Scaling.of(examples.features)
        inputs = scaling(examples.features)
        return ProcessModel(_train(scaling, inputs, examples.target, kept, seed, self.encodes))


class DeepKernel(GaussianProcess):
    """A Gaussian process on what a network makes of the features."""

    name: ClassVar[str] = "deep-kernel"
    encodes: ClassVar[bool] = True


def _balanced(examples: Examples, most: int, seed: int) -> NDArray[np.int64]:
    """Rows in turn from every group of trials that compete, in random order within it, half of them without
    a curve: the base model with the most runs is not the only one to be learned from.
    """
    draw = np.random.default_rng(seed)
    order = draw.permutation(len(examples))
    kind = 2 * examples.group[order] + (examples.share[order] > 0)
    place = np.zeros(len(order), dtype=np.int64)
    for number in np.unique(kind):
        chosen = kind == number
        place[chosen] = np.arange(np.count_nonzero(chosen))
    return np.asarray(order[np.argsort(place, kind="stable")][:most])


def _train(
    scaling: Scaling,
    inputs: NDArray[np.float64],
    target: NDArray[np.float64],
    kept: NDArray[np.int64],
    seed: int,
    encodes: bool,
) -> Arrays:
    """Train with gpytorch on all rows, condition on those to be kept, and take apart what came of it."""
    import torch

    rows, ends = torch.tensor(inputs).float(), torch.tensor(target).float()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model, encoder = _built(rows, ends, encodes)
        _maximise(model, encoder, rows, ends)
    model.set_train_data(rows[kept], ends[kept], strict=False)
    return _taken_apart(scaling, model, encoder)


def _built(inputs: Any, target: Any, encodes: bool) -> tuple[Any, Any]:
    """An exact process of gpytorch, and its network."""
    import gpytorch
    import torch

    width = inputs.shape[1]
    encoder = (
        torch.nn.Sequential(torch.nn.Linear(width, HIDDEN), torch.nn.Tanh(), torch.nn.Linear(HIDDEN, ENCODED))
        if encodes
        else None
    )
    seen = ENCODED if encodes else width

    class Exact(gpytorch.models.ExactGP):
        def __init__(self) -> None:
            super().__init__(inputs, target, gpytorch.likelihoods.GaussianLikelihood())
            prior = gpytorch.priors.LogNormalPrior(0.5 * np.log(seen) + 0.5, 1.0)
            self.mean_module = gpytorch.means.ConstantMean()
            self.covar_module = gpytorch.kernels.ScaleKernel(
                gpytorch.kernels.MaternKernel(2.5, ard_num_dims=seen, lengthscale_prior=prior)
            )
            self.encoder = encoder

        def forward(self, rows: Any) -> Any:
            rows = rows if self.encoder is None else self.encoder(rows)
            return gpytorch.distributions.MultivariateNormal(self.mean_module(rows), self.covar_module(rows))

    model = Exact()
    # Lengths grow with the square root of their number, so that distances stay as they are (Hvarfner et al.,
    # arXiv 2402.02229).
    model.covar_module.base_kernel.lengthscale = float(np.sqrt(seen))
    model.covar_module.outputscale = float(target.var())
    model.likelihood.noise = 0.1 * float(target.var()) + 1e-3
    return model, encoder


def _maximise(model: Any, encoder: Any, inputs: Any, target: Any) -> None:
    import gpytorch
    import torch

    inside = set() if encoder is None else {id(p) for p in encoder.parameters()}
    groups = [{"params": [p for p in model.parameters() if id(p) not in inside], "lr": RATE}]
    if encoder is not None:
        groups.append({"params": list(encoder.parameters()), "lr": NETWORK_RATE, "weight_decay": 1e-3})
    optimizer = torch.optim.AdamW(groups, weight_decay=0.0)
    steps = min(MOST_STEPS, max(LEAST_STEPS, TIMES_DRAWN * len(target) // BATCH_ROWS))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    likelihood = gpytorch.mlls.ExactMarginalLogLikelihood(model.likelihood, model)
    model.train()
    # Up to this size a Cholesky factor is exact and fast; gpytorch would turn to iterations earlier.
    with gpytorch.settings.max_cholesky_size(4 * BATCH_ROWS):
        for _ in range(steps):
            drawn = torch.randperm(len(target))[:BATCH_ROWS]
            model.set_train_data(inputs[drawn], target[drawn], strict=False)
            optimizer.zero_grad()
            loss = -likelihood(model(inputs[drawn]), target[drawn])
            loss.backward()
            optimizer.step()
            schedule.step()


def _taken_apart(scaling: Scaling, model: Any, encoder: Any) -> Arrays:
    import torch

    model.eval()
    with torch.no_grad():
        inputs, target = model.train_inputs[0], model.train_targets
        encoded = inputs if encoder is None else encoder(inputs)
        lengths = model.covar_module.base_kernel.lengthscale[0]
        constant = float(model.mean_module.constant)
        covariance = model.covar_module(encoded).to_dense().double()
        noise = float(model.likelihood.noise)
        factor = torch.linalg.cholesky(covariance + noise * torch.eye(len(target)).double())
        inverse = torch.linalg.inv(factor)
        alpha = inverse.T @ (inverse @ (target.double() - constant))
        numbers = [constant, float(model.covar_module.outputscale), noise]
        arrays = {
            "mean": scaling.mean,
            "stretch": scaling.stretch,
            "lengths": lengths.numpy(),
            "inputs": (encoded / lengths).numpy(),
            "alpha": alpha.float().numpy(),
            "inverse": inverse.float().numpy(),
            "numbers": np.array(numbers, dtype=np.float32),
        }
        if encoder is not None:
            first, _, second = encoder
            arrays |= {"w1": first.weight.numpy(), "b1": first.bias.numpy()}
            arrays |= {"w2": second.weight.numpy(), "b2": second.bias.numpy()}
    return {name: np.array(values) for name, values in arrays.items()}
