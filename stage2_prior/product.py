"""A layer of a prior as a product of vectors with a matrix: what its caches compute with, code by code."""

import torch
from torch import Tensor, nn


class Product:
    """A linear layer or a 1x1 convolution, with its weights in memory of its own: [N, C_in] -> [N, C_out]."""

    def __init__(self, layer: nn.Linear | nn.Conv2d, dtype: torch.dtype):
        self.layer, (outputs, inputs) = layer, layer.weight.shape[:2]
        self.matrix = torch.empty(inputs, outputs, dtype=dtype, device=layer.weight.device)
        self.bias = None if layer.bias is None else torch.empty_like(layer.bias, dtype=dtype)

    def read(self) -> None:
        """Take over the weights that the layer has now."""
        self.matrix.copy_(self.layer.weight.flatten(1).T)
        if self.bias is not None:
            self.bias.copy_(self.layer.bias)

    def __call__(self, x: Tensor) -> Tensor:
        return torch.mm(x, self.matrix) if self.bias is None else torch.addmm(self.bias, x, self.matrix)
