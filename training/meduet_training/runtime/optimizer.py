"""The optimizer of every training: AdamW, no weight decay on 1-D parameters (specification, section 6)."""

from torch import nn
from torch.nn import Parameter
from torch.optim import AdamW


def adamw(
    network: nn.Module, *, learning_rate: float, weight_decay: float, betas: tuple[float, float]
) -> AdamW:
    """Return AdamW on all trainable parameters; biases, norms and scalars such as SiQC's scale do not decay.

    If the network has a method `rate_of(name)`, it returns the fraction of the learning rate for a parameter.
    The parameter group keeps this fraction as `share`.
    """
    rate_of = getattr(network, "rate_of", lambda name: 1.0)
    groups: dict[tuple[float, bool], list[Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((rate_of(name), parameter.ndim > 1), []).append(parameter)
    return AdamW(
        [
            {"params": of, "weight_decay": weight_decay if decays else 0.0, "share": share}
            for (share, decays), of in sorted(groups.items(), key=lambda item: item[0], reverse=True)
        ],
        lr=learning_rate,
        betas=betas,
    )
