"""A start from the best linear code, for trainings of minutes (ours, docs/departures.md).

A transformer needs thousands of steps to find what principal components give at once: which 192 of the 256
numbers of a patch matter. Here the embedding is set to them, every block begins as the identity, and the
prediction is fitted in closed form; the training begins where a linear autoencoder ends.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from napari_meduet.core.objective import Objective
from napari_meduet.core.patches import patchify

GAIN = 4.0  # of tokens over positions, so that positions do not drown the fine components
RIDGE = 1e-3


@torch.no_grad()
def start_from_linear_code(objective: Objective, latent: Float[Tensor, "B C X Y Z"]) -> None:
    """Set student and teacher to a linear autoencoder of these latents' patches."""
    student = objective.student
    config = student.config
    patches = patchify(latent, config.patch_size).flatten(0, 1)  # (N, P)
    width = min(config.width, config.patch_values)
    _, components = torch.linalg.eigh(torch.cov(patches.T))
    embedding = student.encoder.patch_embedding
    embedding.weight.zero_()
    embedding.weight[:width] = GAIN * components[:, -width:].T
    embedding.bias.copy_(-embedding.weight @ patches.mean(dim=0))
    _set_to_identity(student.disentangle.content)
    _set_to_identity(student.decoder.aggregate, keep_from=config.content_width, gain=GAIN)
    _set_to_identity(student.decoder.embedding)
    for transformer in (student.encoder.transformer, student.decoder.transformer):
        for block in transformer.blocks:
            for layer in (block.attention.out, block.mlp[-1]):
                nn.init.zeros_(layer.weight)
    features = []
    handle = student.decoder.prediction.register_forward_hook(
        lambda module, seen, out: features.append(seen[0])
    )
    student.decode(*student.encode(latent))
    handle.remove()
    seen = torch.cat([f.flatten(0, 1) for f in features])  # (N, decoder width)
    seen = torch.cat([seen, torch.ones(len(seen), 1)], dim=1)
    gram = seen.T @ seen / len(seen) + RIDGE * torch.eye(seen.shape[1])
    solution = torch.linalg.solve(gram, seen.T @ patches / len(seen))  # (decoder width + 1, P)
    student.decoder.prediction.weight.copy_(solution[:-1].T)
    student.decoder.prediction.bias.copy_(solution[-1])
    objective.teacher.load_state_dict(student.state_dict())


def _set_to_identity(layer: nn.Linear, *, keep_from: int | None = None, gain: float = 1.0) -> None:
    """Pass the first inputs on; inputs from `keep_from` on keep their random weights."""
    columns = layer.weight.shape[1] if keep_from is None else keep_from
    layer.weight[:, :columns] = gain * torch.eye(layer.weight.shape[0], columns)
