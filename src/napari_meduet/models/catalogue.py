"""Published tokenizer weights that this project can use but does not ship, with licences and digests.

Nothing is downloaded before the user has read `sentence` and accepted the licence. A downloaded file is
compared with its digest before it is opened, and a file that the user supplies is recognised by its digest.
The licences were read on the model hub; the text there is binding.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from napari_meduet.errors import InputError


@dataclass(frozen=True, kw_only=True)
class PublishedWeights:
    """One file of weights on the model hub.

    Attributes:
        repository, file: where the hub stores it.
        licence: the licence as the hub states it.
        sha256: digest of the file.
        megabytes: size of the file.
        tokenizer: the tokenizer that reads the weights (`tokenizers/registry.py`).
    """

    repository: str
    file: str
    licence: str
    sha256: str
    megabytes: float
    tokenizer: str = "maisi"

    @property
    def sentence(self) -> str:
        """File, size and licence, to read before accepting the licence."""
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
    """Return the catalogue entry of a local file, found by its digest, or None."""
    digest = _sha256(path)
    return next((weights for weights in PUBLISHED.values() if weights.sha256 == digest), None)


def look_up(repository: str, file: str) -> PublishedWeights:
    """Return what the hub states about a file outside the catalogue. No weights are downloaded.

    Raises:
        InputError: the hub does not answer, has no such file, or states no licence or digest for it.
    """
    from huggingface_hub import model_info

    try:
        answer = model_info(repository, files_metadata=True)
    except Exception as error:  # the HTTP library of the hub raises many different errors
        raise InputError(f"{repository}: the model hub gave no answer ({type(error).__name__}).") from error
    found = next((entry for entry in answer.siblings or () if entry.rfilename == file), None)
    if found is None:
        raise InputError(f"{repository}: there is no file {file} in this repository.")
    card = answer.card_data or {}
    licence = card.get("license_name") or card.get("license")
    if not licence or not found.lfs or not found.size:
        raise InputError(
            f"{repository}: the hub states no licence or no digest for {file}. Download it yourself."
        )
    return PublishedWeights(
        repository=repository,
        file=file,
        licence=licence,
        sha256=found.lfs.sha256,
        megabytes=round(found.size / 1e6, 1),
    )


def fetch(weights: PublishedWeights, *, licence_accepted: bool = False) -> Path:
    """Return the local path of a file, checked against its digest. A missing file is downloaded.

    Args:
        licence_accepted: the user has read `weights.sentence` and accepted the licence. Otherwise nothing is
            downloaded.

    Raises:
        InputError: the file is not on this machine and the licence was not accepted, the download failed, or
            the file differs from the published one.

    Examples:
        >>> print(PUBLISHED["maisi-ct"].sentence)
        models/autoencoder_v1.pt of nvidia/NV-Generate-CT: 83.8 MB, licence: NVIDIA Open Model License.
        >>> path = fetch(PUBLISHED["maisi-ct"], licence_accepted=True)
    """
    from huggingface_hub import hf_hub_download

    try:
        path = Path(hf_hub_download(weights.repository, weights.file, local_files_only=True))
    except FileNotFoundError:
        if not licence_accepted:
            raise InputError(
                f"{weights.sentence} It is not on this machine. Accept the licence to download it, or give a "
                "local file."
            ) from None
        path = _download(weights)
    digest = _sha256(path)
    if digest != weights.sha256:
        raise InputError(
            f"{path.name}: this is not the file that {weights.repository} published (sha256 {digest[:12]}… "
            f"instead of {weights.sha256[:12]}…). Delete it from the hub's cache and download it again."
        )
    return path


def _download(weights: PublishedWeights) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(weights.repository, weights.file))
    except Exception as error:  # the HTTP library of the hub raises many different errors
        raise InputError(
            f"{weights.file} of {weights.repository} could not be downloaded ({type(error).__name__}). "
            "Check the network connection and the login to the hub, or give a local file."
        ) from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
