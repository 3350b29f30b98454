"""Gaussian processes as families of regressors, trained with gpytorch and evaluated with numpy.

``gp`` has one length scale per feature (automatic relevance determination). ``deep-kernel`` is the reference
of Quick-Tune (arXiv 2306.03828): its kernel acts on features computed by a small network. Every training step
maximises the marginal likelihood on another small part of the examples.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from tunecast.predictor.examples import Examples
from tunecast.predictor.named_arrays import Arrays
from tunecast.predictor.scaling import Scaling
from tunecast_benchmarks.regressors.base import Family
from tunecast_benchmarks.regressors.process import ProcessModel

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_ROWS = 1000
"""Examples that a process keeps; they determine the size of the prior's file."""
BATCH_ROWS = 128
"""Examples per step of training."""
TIMES_DRAWN = 12
"""Mean number of times that an example is drawn, within the limits of steps."""
MIN_STEPS, MAX_STEPS = 100, 800
RATE = 0.1
NETWORK_RATE = 0.01
HIDDEN, ENCODED = 32, 8


class GaussianProcess(Family):
    """A Gaussian process with one length scale per feature."""

    name: ClassVar[str] = "gp"
    encodes: ClassVar[bool] = False

    def fit(self, examples: Examples, seed: int) -> ProcessModel:
        """Maximise the marginal likelihood on all examples, and condition on a balanced part of them."""
        kept = _balanced(examples, MAX_ROWS, seed)
        scaling = Scaling.of(examples.features)
        inputs = scaling(examples.features)
        return ProcessModel(_train(scaling, inputs, examples.target, kept, seed, self.encodes))


class DeepKernel(GaussianProcess):
    """A Gaussian process on features computed by a small network."""

    name: ClassVar[str] = "deep-kernel"
    encodes: ClassVar[bool] = True


def _balanced(examples: Examples, most: int, seed: int) -> NDArray[np.int64]:
    """Rows from all groups of competing trials in turn, half of them without a curve.

    Within a group the order is random. The base model with the most runs thus does not dominate.
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
    """Train with gpytorch on all rows, condition on the kept ones, and return the arrays of a model."""
    import torch

    rows, ends = torch.tensor(inputs).float(), torch.tensor(target).float()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model, encoder = _built(rows, ends, encodes)
        _maximise(model, encoder, rows, ends)
    model.set_train_data(rows[kept], ends[kept], strict=False)
    return _arrays_of(scaling, model, encoder)


def _built(inputs: Any, target: Any, encodes: bool) -> tuple[Any, Any]:
    """Build an exact process of gpytorch and its network."""
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
    # Lengths grow with the square root of their number to keep distances (Hvarfner et al., arXiv 2402.02229).
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
    steps = min(MAX_STEPS, max(MIN_STEPS, TIMES_DRAWN * len(target) // BATCH_ROWS))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    likelihood = gpytorch.mlls.ExactMarginalLogLikelihood(model.likelihood, model)
    model.train()
    # Up to this size a Cholesky factor is exact and fast; gpytorch would switch to iterations earlier.
    with gpytorch.settings.max_cholesky_size(4 * BATCH_ROWS):
        for _ in range(steps):
            drawn = torch.randperm(len(target))[:BATCH_ROWS]
            model.set_train_data(inputs[drawn], target[drawn], strict=False)
            optimizer.zero_grad()
            loss = -likelihood(model(inputs[drawn]), target[drawn])
            loss.backward()
            optimizer.step()
            schedule.step()


def _arrays_of(scaling: Scaling, model: Any, encoder: Any) -> Arrays:
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


PROCESSES: dict[str, Family] = {family.name: family for family in (GaussianProcess(), DeepKernel())}
"""Families by name."""
