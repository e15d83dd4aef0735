"""A kernel in a few lines: the rows of x that a row of A names, weighted and added. It becomes spmm_csr_f32_gather."""

import numpy as np


def spmm(indptr, indices, data, shape, x, out):
    """out = A @ x.

    Args:
        indptr, indices, data: A as CSR: int64 (M + 1), int32 and float32 (nnz). Not to be written.
        shape: (M, K).
        x: float32, (K, N), row-major. Not to be written.
        out: float32, (M, N), row-major: every element must be written.
    """
    for row in range(shape[0]):
        entries = slice(indptr[row], indptr[row + 1])
        np.matmul(data[entries], x[indices[entries]], out=out[row])
