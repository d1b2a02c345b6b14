"""Initial weights of a linear autoencoder, for trainings of minutes (ours, docs/departures.md).

A network needs thousands of steps to learn a projection that principal components give at once. The linear
layers of the network are set to these components, and all other layers start with an output of zero. So the
training starts with the error of a linear autoencoder. `tasks/tokenizer/linear_start.py` does the same for
the wavelet tokenizer.
"""

from collections.abc import Iterable
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from meduet_training.data.sources.protocol import BatchSource
from meduet_training.engine.config import TrainingConfig
from napari_meduet.core.objective import Objective
from napari_meduet.core.patches import patchify
from napari_meduet.core.transformer import Block

GAIN = 4.0  # scale of the tokens relative to the positions, which would mask the small components otherwise
RIDGE = 1e-3
NUM_VOLUMES = 64  # from which the linear code of a network is computed


def init_weights(objective: nn.Module, *, config: TrainingConfig, source: BatchSource[Any]) -> None:
    """Set the weights of a new pretraining: a linear start if its configuration asks for one."""
    if config.linear_start:
        rows = source.read(source.choose(-1, NUM_VOLUMES))
        start_network_linearly(cast(Objective, objective), rows["latent"])


@torch.no_grad()
def start_network_linearly(objective: Objective, latent: Float[Tensor, "B C X Y Z"]) -> None:
    """Set student and teacher to a linear autoencoder of the patches of these latents.

    The embedding becomes the principal components, every block starts as the identity, and the prediction is
    fitted in closed form to its inputs.
    """
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
        for block in cast(Iterable[Block], transformer.blocks):
            for layer in (block.attention.out, block.mlp[-1]):
                nn.init.zeros_(cast(nn.Linear, layer).weight)
    _fit_prediction(objective, latent, patches)
    objective.teacher.load_state_dict(student.state_dict())


def _fit_prediction(
    objective: Objective, latent: Float[Tensor, "B C X Y Z"], patches: Float[Tensor, "N P"]
) -> None:
    """Fit the last layer of the decoder by ridge regression of the patches on its inputs."""
    student, tokens_in = objective.student, []
    handle = student.decoder.prediction.register_forward_hook(
        lambda module, inputs, output: tokens_in.append(inputs[0])
    )
    student.decode(*student.encode(latent))
    handle.remove()
    features = torch.cat([tokens.flatten(0, 1) for tokens in tokens_in])  # (N, decoder width)
    features = torch.cat([features, torch.ones(len(features), 1)], dim=1)
    gram = features.T @ features / len(features) + RIDGE * torch.eye(features.shape[1])
    solution = torch.linalg.solve(gram, features.T @ patches / len(features))  # (decoder width + 1, P)
    student.decoder.prediction.weight.copy_(solution[:-1].T)
    student.decoder.prediction.bias.copy_(solution[-1])


def _set_to_identity(layer: nn.Linear, *, keep_from: int | None = None, gain: float = 1.0) -> None:
    """Set a layer to the identity on its first inputs. Inputs from `keep_from` on keep their weights."""
    columns = layer.weight.shape[1] if keep_from is None else keep_from
    layer.weight[:, :columns] = gain * torch.eye(layer.weight.shape[0], columns)
