"""The optimizer of every training here: AdamW without weight decay on what is no matrix (SPEC section 6)."""

from torch import nn
from torch.optim import AdamW


def adamw(
    network: nn.Module, *, learning_rate: float, weight_decay: float, betas: tuple[float, float]
) -> AdamW:
    """AdamW on all that is trained; biases, norms and single numbers such as SiQC's scale do not decay."""
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    return AdamW(
        [
            {"params": [p for p in trained if p.ndim > 1], "weight_decay": weight_decay},
            {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
        ],
        lr=learning_rate,
        betas=betas,
    )
