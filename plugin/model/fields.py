"""What the fields of a slot are called. Read by the operator, its kernels and the tables."""

from __future__ import annotations

__all__ = ["COSINE", "COUNT", "EUCLIDEAN", "FIRST", "LIMIT", "NOT_HERE"]

# Fields of a slot. FIRST: its first row, or NOT_HERE. COUNT: 0 for a coarse profile, whose row is FIRST; K for a fine
# one, with centroids at FIRST and vectors at FIRST + K. LIMIT: which
# distance its rows have limits of, 0 where none of them has one.
FIRST, COUNT, LIMIT = range(3)
NOT_HERE = -1  # in place of a row, wherever one is named: nothing is added
EUCLIDEAN, COSINE = 1, 2
