"""What a network costs."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def network_cost(network: nn.Module, input_size: tuple[int, int]) -> dict[str, float]:
    """Counts parameters and floating-point operations.

    Args:
        network: Maps (B, 3, H, W) to logits.
        input_size: Height and width, in pixels.

    Returns:
        parameters, and gflops: 10^9 operations for one image's forward pass, a multiplication with its
        addition as two (PyTorch's FlopCounterMode: convolutions, products of matrices and attention).
    """
    weight = next(network.parameters())
    training = network.training
    network.eval()
    # Of a compiled network the counter would see next to nothing.
    eager = torch.compiler.set_stance("force_eager")
    with eager, torch.no_grad(), FlopCounterMode(display=False) as counter:
        # Not weight.new_zeros, which of sharded weights makes a sharded image.
        network(torch.zeros(1, 3, *input_size, device=weight.device, dtype=weight.dtype))
    network.train(training)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return {"parameters": parameters, "gflops": round(counter.get_total_flops() / 1e9, 3)}
