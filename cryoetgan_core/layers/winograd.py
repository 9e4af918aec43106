"""3^3 convolutions with few multiplications: Winograd's minimal filtering, of which the generator's residual blocks are
built on a CPU.

Lavin & Gray 2016 (doi 10.1109/CVPR.2016.435), F(2, 3) along each of the three axes: two voxels of a result from four of
the input take 4 products where the sum has 6, in three dimensions 64 where it has 216. The same function; rounding
differs by a few units in the last place.
"""

import functools
import math

import torch

from .convolution import conv3d, reflect_pad

OF_INPUT = ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1))
OF_KERNEL = ((1, 0, 0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0, 0, 1))
OF_PRODUCTS = ((1, 1, 1, 0), (0, 1, -1, -1))
FEW_VOXELS = 32  # a channel, of a batch: beyond, the transforms leave the cache and cost more than the products saved


@functools.lru_cache
def axis_matrices(n: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """For an axis of n voxels in tiles of 2: what takes it, reflect-padded by 1, to 4 numbers a tile, (4 tiles, n), and
    what takes 4 products a tile to the result, (n, 4 tiles).
    """
    tiles = -(-n // 2)
    pad = torch.zeros(2 * tiles + 2, n, dtype=dtype)
    for row in range(n + 2):
        i = abs(row - 1)
        pad[row, i if i < n else 2 * (n - 1) - i] = 1
    windows = pad.unfold(0, 4, 2)  # (tiles, n, 4)
    there = torch.einsum("ai,tni->atn", torch.tensor(OF_INPUT, dtype=dtype), windows).reshape(4 * tiles, n)
    back = torch.einsum("ra,ts->tras", torch.tensor(OF_PRODUCTS, dtype=dtype), torch.eye(tiles, dtype=dtype))
    return there, back.reshape(2 * tiles, 4 * tiles)[:n]


@functools.lru_cache
def kernel_matrix(dtype: torch.dtype) -> torch.Tensor:
    """What takes the 27 weights of a kernel to its 64 numbers."""
    one = torch.tensor(OF_KERNEL, dtype=dtype)
    return torch.einsum("ai,bj,ck->abcijk", one, one, one).reshape(64, 27)


def along(matrix: torch.Tensor, x: torch.Tensor, axis: int) -> torch.Tensor:
    """Multiply one axis of `x` by a matrix (new, old)."""
    lines = x.reshape(*x.shape[:axis], x.shape[axis], -1)
    return (matrix @ lines).view(*x.shape[:axis], len(matrix), *x.shape[axis + 1 :])


def conv_reflected(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """3^3 convolution of volumes reflect-padded by 1, so that they keep their size.

    Parameters
    ----------
    x : Tensor (B, C_in, D, H, W)
    weight : Tensor (C_out, C_in, 3, 3, 3)

    Returns
    -------
    Tensor (B, C_out, D, H, W)
    """
    b, c_in, *box = x.shape
    c_out = len(weight)
    if x.device.type != "cpu" or torch.is_autocast_enabled("cpu") or b * math.prod(box) > FEW_VOXELS * min(c_in, c_out):
        return conv3d(reflect_pad(x, 1), weight)
    pairs = [axis_matrices(n, x.dtype) for n in box]
    h = x.permute(2, 3, 4, 0, 1)  # (D, H, W, B, C)
    for axis, (there, _) in enumerate(pairs):
        h = along(there, h, axis)
    d, e, f = (len(there) // 4 for there, _ in pairs)  # tiles
    h = h.view(4, d, 4, e, 4, f, b * c_in).permute(0, 2, 4, 1, 3, 5, 6).reshape(64, d * e * f * b, c_in)
    kernels = kernel_matrix(x.dtype) @ weight.permute(2, 3, 4, 1, 0).reshape(27, c_in * c_out)
    h = torch.bmm(h, kernels.view(64, c_in, c_out))
    h = h.view(4, 4, 4, d, e, f, b * c_out).permute(0, 3, 1, 4, 2, 5, 6).reshape(4 * d, 4 * e, 4 * f, b, c_out)
    for axis, (_, back) in reversed(list(enumerate(pairs))):
        h = along(back, h, axis)
    return h.permute(3, 4, 0, 1, 2)
