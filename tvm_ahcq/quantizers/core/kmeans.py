"""k-means for a few hundred points in the plane, with seeded k-means++ starts."""

from __future__ import annotations

import numpy as np


def kmeans(points: np.ndarray, clusters: int, starts: int = 4, rounds: int = 50) -> np.ndarray:
    """Return the cluster of each point; the best of several starts by sum of squared distances.

    Parameters
    ----------
    points : numpy.ndarray
        ``(N, D)`` float.
    clusters : int
        At most this many; fewer if there are fewer distinct points.
    starts, rounds : int
        Seeded starts, and Lloyd rounds each at most.

    Returns
    -------
    numpy.ndarray
        ``(N,)`` int labels from 0.
    """
    points = np.asarray(points, np.float64)
    rng = np.random.default_rng(0)
    best_cost, best = np.inf, np.zeros(len(points), np.int64)
    for _ in range(starts):
        labels, cost = _lloyd(points, _start_centres(points, clusters, rng), rounds)
        if cost < best_cost:
            best_cost, best = cost, labels
    return best


def inertia(points: np.ndarray, labels: np.ndarray) -> float:
    """Return the sum of squared distances of the points to the means of their clusters."""
    points = np.asarray(points, np.float64)
    return float(sum(((points[labels == k] - points[labels == k].mean(0)) ** 2).sum() for k in np.unique(labels)))


def _start_centres(points: np.ndarray, clusters: int, rng: np.random.Generator) -> np.ndarray:
    """Return greedy k-means++ centres, drawn with probability proportional to the squared distance to the others."""
    centres = [points[rng.integers(len(points))]]
    nearest = ((points - centres[0]) ** 2).sum(1)
    while len(centres) < clusters and nearest.sum() > 0:
        drawn = rng.choice(len(points), 2 + int(np.log(clusters)), p=nearest / nearest.sum())
        after = np.minimum(nearest, ((points[None] - points[drawn][:, None]) ** 2).sum(-1))
        pick = after.sum(1).argmin()
        centres.append(points[drawn[pick]])
        nearest = after[pick]
    return np.stack(centres)


def _lloyd(points: np.ndarray, centres: np.ndarray, rounds: int) -> tuple[np.ndarray, float]:
    """Return labels and their cost after assigning and averaging until no label changes (Lloyd)."""
    labels = np.full(len(points), -1)
    for _ in range(rounds):
        distance = ((points[:, None] - centres) ** 2).sum(-1)
        previous, labels = labels, distance.argmin(1)
        if (labels == previous).all():
            break
        for k in np.unique(labels):
            centres[k] = points[labels == k].mean(0)
    return labels, inertia(points, labels)
