"""The optimizer of every training here: AdamW without weight decay on what is no matrix (specification, section 6)."""

from torch import nn
from torch.nn import Parameter
from torch.optim import AdamW


def adamw(
    network: nn.Module, *, learning_rate: float, weight_decay: float, betas: tuple[float, float]
) -> AdamW:
    """AdamW on all that is trained; biases, norms and single numbers such as SiQC's scale do not decay.

    A network with a method `rate_of` says of each parameter, by its name, at which share of the learning rate
    it is trained; the share is kept in the group as `share`.
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
