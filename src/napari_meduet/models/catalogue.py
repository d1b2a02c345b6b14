"""Published weights that this project can use and does not ship: where, under which licence, how large.

Nothing is fetched before the user has seen `sentence` and accepted the licence. What arrives is compared with
its digest before anything opens it, and a file that the user brings is recognised by its digest. The licences
were read on the model hub, whose pages are what binds.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from napari_meduet.errors import InputError


@dataclass(frozen=True, kw_only=True)
class PublishedWeights:
    """One file on the model hub, and what one must know before fetching it."""

    repository: str
    file: str
    licence: str
    sha256: str
    megabytes: float
    tokenizer: str = "maisi"

    @property
    def sentence(self) -> str:
        """What a user reads before accepting the licence."""
        return f"{self.file} of {self.repository}: {self.megabytes:g} MB, licence: {self.licence}."


PUBLISHED = {
    "maisi-ct": PublishedWeights(
        repository="nvidia/NV-Generate-CT",
        file="models/autoencoder_v1.pt",
        licence="NVIDIA Open Model License",
        sha256="1f8a7a056d0ebc00486edc43c26768bf1c12eaa6df9dd172e34598003be95eb3",
        megabytes=83.8,
    ),
    "maisi-mr": PublishedWeights(
        repository="nvidia/NV-Generate-MR",
        file="models/autoencoder_v2.pt",
        licence="NVIDIA OneWay Noncommercial License: research and evaluation only",
        sha256="b5ed556dc64872cae11ebe67cc33e84fbd05ebdf7e35e40c74d956404e7c1ef0",
        megabytes=83.8,
    ),
}


def recognise(path: Path) -> PublishedWeights | None:
    """The catalogue's entry for a file on this machine, found by its digest; None where it has none."""
    digest = _sha256(path)
    return next((weights for weights in PUBLISHED.values() if weights.sha256 == digest), None)


def look_up(repository: str, file: str) -> PublishedWeights:
    """What the hub says of a file that the catalogue does not know. Asks the hub; fetches no weights.

    Raises:
        InputError: the hub does not answer, or has no such file, or states no licence or digest for it.
    """
    from huggingface_hub import model_info

    try:
        answer = model_info(repository, files_metadata=True)
    except Exception as error:  # whatever the hub's HTTP library raises today
        raise InputError(f"{repository}: the model hub gave no answer ({type(error).__name__}).") from error
    found = next((entry for entry in answer.siblings or () if entry.rfilename == file), None)
    if found is None:
        raise InputError(f"{repository}: there is no file {file} in this repository.")
    card = answer.card_data or {}
    licence = card.get("license_name") or card.get("license")
    if not licence or not found.lfs or not found.size:
        raise InputError(
            f"{repository}: the hub states no licence or no digest for {file}. Fetch it yourself."
        )
    return PublishedWeights(
        repository=repository,
        file=file,
        licence=licence,
        sha256=found.lfs.sha256,
        megabytes=round(found.size / 1e6, 1),
    )


def fetch(weights: PublishedWeights, *, licence_accepted: bool = False) -> Path:
    """The file on this machine, checked against its digest. What is there already is not fetched again.

    Args:
        licence_accepted: the user has read `weights.sentence` and agreed. Without it no connection is made.

    Raises:
        InputError: not on this machine and not agreed to, out of reach, or not the file that was published.
    """
    from huggingface_hub import hf_hub_download

    try:
        path = Path(hf_hub_download(weights.repository, weights.file, local_files_only=True))
    except FileNotFoundError:
        if not licence_accepted:
            raise InputError(
                f"{weights.sentence} It is not on this machine: accept the licence to fetch it, or name one."
            ) from None
        path = _download(weights)
    digest = _sha256(path)
    if digest != weights.sha256:
        raise InputError(
            f"{path.name}: this is not the file that {weights.repository} published (sha256 {digest[:12]}… "
            f"instead of {weights.sha256[:12]}…). Delete it from the hub's cache and fetch it again."
        )
    return path


def _download(weights: PublishedWeights) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(weights.repository, weights.file))
    except Exception as error:  # whatever the hub's HTTP library raises today
        raise InputError(
            f"{weights.file} of {weights.repository} could not be fetched ({type(error).__name__}). "
            "Are you online, and logged in where the repository asks for it? A file from elsewhere will do."
        ) from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
