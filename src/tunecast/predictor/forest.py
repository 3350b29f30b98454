"""Extremely randomised trees (Geurts et al., 2006), fitted by scikit-learn and evaluated with numpy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tunecast.arrays import Floats
from tunecast.predictor.examples import Examples
from tunecast.predictor.named_arrays import Arrays

if TYPE_CHECKING:
    from numpy.typing import NDArray

MIN_VARIANCE = 1e-6
SHARE_OF_FEATURES = 0.5


class ForestModel:
    """Trees as flat arrays, one element per node of all trees, in small types: most of a prior is trees.

    A node is followed by its left child, if it has children.

    Args:
        feature: Feature that a node splits on; 0 at leaves.
        threshold: Rows with a value up to it go left; infinite at leaves.
        right: Number of nodes from a node to its right child; 0 at leaves.
        mean: Mean target of a node.
        variance: Variance of the target in a node.
        roots: Root of each tree, shape (trees,).
        depth: Levels of the deepest tree, shape (1,).
    """

    def __init__(self, arrays: Arrays) -> None:
        self.arrays = dict(arrays)
        nodes = {name: np.asarray(values) for name, values in arrays.items()}
        self._feature, self._threshold = nodes["feature"].astype(np.intp), nodes["threshold"]
        to_right, own = nodes["right"].astype(np.intp), np.arange(len(nodes["right"]))
        self._children = np.stack([own + to_right, own + (to_right > 0)], axis=1).ravel()
        self._mean, self._variance = nodes["mean"].astype(float), nodes["variance"].astype(float)
        self._roots, self._depth = nodes["roots"].astype(np.intp), int(nodes["depth"][0])

    def predict(self, features: Floats) -> tuple[Floats, Floats]:
        """Return the mean over trees; the variance within leaves plus the variance between trees."""
        rows = np.ascontiguousarray(features, dtype=np.float32)
        flat, offsets = rows.ravel(), (np.arange(len(rows)) * rows.shape[1])[:, None]
        at = np.broadcast_to(self._roots, (len(rows), len(self._roots)))
        for _ in range(self._depth):
            goes_left = flat[offsets + self._feature[at]] <= self._threshold[at]
            at = self._children[2 * at + goes_left]
        means = self._mean[at]
        variance = self._variance[at].mean(axis=1) + means.var(axis=1)
        return means.mean(axis=1), np.maximum(variance, MIN_VARIANCE)


def grow(examples: Examples, trees: int, leaf: int, seed: int) -> ForestModel:
    """Grow trees on at least one row; every task has the same weight.

    Args:
        examples: Rows to learn from.
        trees: Number of trees.
        leaf: Least number of rows in a leaf.
        seed: Seed of the random splits.
    """
    from sklearn.ensemble import ExtraTreesRegressor

    grown = ExtraTreesRegressor(
        trees, min_samples_leaf=leaf, max_features=SHARE_OF_FEATURES, random_state=seed
    )
    counts = np.bincount(examples.task)
    weights = len(examples) / (counts[examples.task] * np.count_nonzero(counts))
    grown.fit(examples.features, examples.target, weights)
    return ForestModel(_flat([tree.tree_ for tree in grown.estimators_]))


def _flat(trees: list[Any]) -> Arrays:
    """Concatenate the trees of scikit-learn."""
    joined: dict[str, list[NDArray[np.generic]]] = {}
    for tree in trees:
        leaf = tree.children_left < 0
        nodes = {
            "feature": np.where(leaf, 0, tree.feature),
            "threshold": np.where(leaf, np.inf, tree.threshold).astype(np.float32),
            "right": np.where(leaf, 0, tree.children_right - np.arange(tree.node_count)),
            "mean": tree.value[:, 0, 0].astype(np.float16),
            "variance": tree.impurity.astype(np.float16),
        }
        for name, values in nodes.items():
            joined.setdefault(name, []).append(values)
    flat = {name: np.concatenate(values) for name, values in joined.items()}
    for name in ("feature", "right"):
        flat[name] = flat[name].astype(np.min_scalar_type(flat[name].max()))
    counts = [tree.node_count for tree in trees]
    roots = np.concatenate([[0], np.cumsum(counts[:-1])]).astype(np.int32)
    depth = np.array([max(tree.max_depth for tree in trees)], dtype=np.int32)
    return {**flat, "roots": roots, "depth": depth}
