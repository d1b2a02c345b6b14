"""The modalities of scans. This module imports no libraries, so that commands open at once."""

from typing import Literal

Modality = Literal["CT", "MR"]
