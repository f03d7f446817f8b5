"""One hash for tensors, independent of the file they came from."""

import hashlib
from collections.abc import Iterable

import torch
from torch import Tensor


def hash_tensors(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """SHA-256 (hex) over names, types, shapes and bytes of tensors, sorted by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors, key=lambda item: item[0]):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
