"""How alike two teachers' embeddings of the same crops are: cosines, and linear CKA where sizes differ."""

from dataclasses import dataclass, field

import numpy as np


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(n,) float64 cosines of the rows of two (n, D) arrays; NaN where one of them is a zero vector."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (a * b).sum(axis=1) / lengths


@dataclass
class LinearCKA:
    """Linear CKA of rows that are added bit by bit (Kornblith et al., ICML 2019, section 3): 1 where one set
    is a rotation and scaling of the other, 0 where nothing of one can be told from the other."""

    rows: int = 0
    sums: list[np.ndarray] = field(default_factory=list)
    products: list[np.ndarray] = field(default_factory=list)  # a'a, b'b, a'b

    def add(self, a: np.ndarray, b: np.ndarray) -> None:
        """More rows: (n, D) of one, (n, E) of the other."""
        a, b = a.astype(np.float64), b.astype(np.float64)
        sums, products = [a.sum(axis=0), b.sum(axis=0)], [a.T @ a, b.T @ b, a.T @ b]
        if self.rows:
            sums = [old + new for old, new in zip(self.sums, sums)]
            products = [old + new for old, new in zip(self.products, products)]
        self.rows, self.sums, self.products = self.rows + len(a), sums, products

    def value(self) -> float:
        """NaN where one side does not vary."""
        pairs = ((0, 0), (1, 1), (0, 1))
        centred = [
            product - np.outer(self.sums[i], self.sums[j]) / self.rows
            for product, (i, j) in zip(self.products, pairs)
        ]
        own_a, own_b, both = (np.linalg.norm(product) for product in centred)
        return float(both**2 / (own_a * own_b)) if own_a * own_b > 0 else float("nan")
