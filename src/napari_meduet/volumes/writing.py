"""Results on disk: whole, under their final name, or not at all.

Everything is written beside its destination, flushed to the disk and only then renamed. A full disk, a kill
or a folder without permission leaves what was there before. (Other writers report success on a full disk.)
"""

import errno
import io
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from isal import isal_zlib
from nibabel.nifti1 import Nifti1Extension, Nifti1Header

from napari_meduet.errors import InputError
from napari_meduet.volumes import nifti
from napari_meduet.volumes.safe_open import PathLike, reason, shown_name
from napari_meduet.volumes.volume import Volume

COMPRESSION_LEVEL = 2  # of ISA-L: the size of zlib's default within 3 % at a tenth of the time
SCANNER_COORDINATES = 1  # sform and qform code of a grid that came without codes (DICOM, NRRD, MHA)
MILLIMETRES = 2
CHUNK_VOXELS = 2**20
SUFFIXES = (".nii.gz", ".nii")
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


def sidecar_path(path: PathLike) -> Path:
    """`OUT.json` beside `OUT.nii.gz`, `OUT.style` or any other result."""
    path = Path(os.fsdecode(path))
    name = path.name
    for suffix in (*SUFFIXES, path.suffix):
        if suffix and name.endswith(suffix):
            return path.with_name(name.removesuffix(suffix) + ".json")
    return path.with_name(name + ".json")


def write_volume(
    path: PathLike,
    volume: Volume,
    *,
    provenance: Mapping[str, Any],
    overwrite: bool = False,
    beside: Mapping[Path, bytes] | None = None,
) -> None:
    """Write a NIfTI file and its JSON sidecar, and whatever shall be written with them: all, or nothing.

    Grid, affine, header codes, dtype, scaling and unit are the volume's own. The provenance also goes into
    the header, as compact JSON in a comment extension, and comes back as `Volume.synthetic`.

    Args:
        beside: contents of further files.
    """
    path = Path(os.fsdecode(path))
    if not path.name.endswith(SUFFIXES):
        raise InputError(f"{shown_name(path)}: the name of a volume ends in .nii.gz or .nii.")
    header = _header(volume, provenance)
    sidecar = json.dumps(dict(provenance), indent=2, allow_nan=False) + "\n"
    contents = {sidecar_path(path): sidecar.encode(), **(beside or {})}
    with write_all_atomically([*contents, path], overwrite) as (*others, temporary):
        for other, content in zip(others, contents.values(), strict=True):
            other.write_bytes(content)
        with open(temporary, "wb") as file:
            _write_nifti(file, header, volume.voxels, compressed=path.name.endswith(".gz"))


@contextmanager
def write_atomically(path: PathLike, overwrite: bool = False) -> Iterator[Path]:
    """A temporary path beside `path`; what is written there becomes `path` when the block ends well."""
    with write_all_atomically([Path(os.fsdecode(path))], overwrite) as (temporary,):
        yield temporary


@contextmanager
def write_all_atomically(destinations: list[Path], overwrite: bool = False) -> Iterator[list[Path]]:
    """As `write_atomically`, of several files: all of them, or none."""
    token = secrets.token_hex(6)
    temporaries = [path.with_name(f".{token}-{k}{path.suffix}") for k, path in enumerate(destinations)]
    try:
        with ExitStack() as cleanup:
            for path in destinations:
                _check_destination(path, overwrite)
            for temporary, path in zip(temporaries, destinations, strict=True):
                cleanup.callback(temporary.unlink, missing_ok=True)
                temporary.touch(exist_ok=False)
                if path.exists():
                    temporary.chmod(path.stat().st_mode & 0o777)
            yield temporaries
            for temporary in temporaries:
                _flush(temporary)
            for path in destinations:  # another process may have been quicker
                _check_destination(path, overwrite)
            _rename_all(temporaries, destinations)
    except OSError as error:
        raise InputError(
            f"{shown_name(destinations[-1])}: cannot be written ({refusal(error, destinations[-1].parent)}); "
            "nothing was changed."
        ) from error


def refusal(error: OSError, folder: Path, num_bytes: int | None = None) -> str:
    """What the system said when it refused to write; of a full disk also what is needed and what is free.

    Args:
        folder: that was to be written to.
        num_bytes: that are needed, where that is known.
    """
    if error.errno not in DISK_FULL:
        return reason(error)
    needed = "" if num_bytes is None else f"{_in_words(num_bytes)} are needed, "
    return f"{reason(error)}; {needed}{_in_words(shutil.disk_usage(folder).free)} are free"


def check_room(folder: Path, num_bytes: int) -> None:
    """Refuse to begin what the disk cannot hold.

    Raises:
        InputError: fewer bytes are free.
    """
    if shutil.disk_usage(folder).free < num_bytes:
        error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        raise InputError(
            f"{shown_name(folder)}: cannot be written ({refusal(error, folder, num_bytes)}); "
            "nothing was changed."
        )


def _in_words(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:.2f} MB" if num_bytes >= 1e5 else f"{num_bytes / 1e3:.1f} kB"


def _check_destination(path: Path, overwrite: bool) -> None:
    name = shown_name(path)
    if not path.parent.is_dir():
        raise InputError(f"{name}: cannot be written, its folder does not exist; create it first.")
    if path.is_dir():
        raise InputError(f"{name}: is a folder; choose the name of a file.")
    if os.path.lexists(path):
        if not overwrite:
            raise InputError(
                f"{name}: exists already; choose another name or allow overwriting (--overwrite)."
            )
        if path.exists() and not path.is_file():
            raise InputError(f"{name}: is not a regular file and is not overwritten.")


def _flush(path: Path) -> None:
    """Wait until the bytes are on the disk; a full network disk may only say so now."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def _rename_all(temporaries: list[Path], destinations: list[Path]) -> None:
    """Give every file its final name; if one refuses, put back what the earlier ones replaced."""
    with ExitStack() as tidy, ExitStack() as undo:
        for temporary, path in zip(temporaries, destinations, strict=True):
            kept = None
            if path is not destinations[-1] and path.exists():  # after the last one nothing can fail
                kept = temporary.with_name(f"{temporary.name}-kept")
                tidy.callback(kept.unlink, missing_ok=True)
                shutil.copy2(path, kept)
            os.replace(temporary, path)
            if kept is None:
                undo.callback(path.unlink)
            else:
                undo.callback(os.replace, kept, path)
        undo.pop_all()


def _header(volume: Volume, provenance: Mapping[str, Any]) -> Nifti1Header:
    """The header to write: the input's own where it has one, with the provenance as its only extension."""
    if volume.header is None:
        header = Nifti1Header()
        header["xyzt_units"] = MILLIMETRES
    else:
        header = volume.header.copy()
    header.set_data_dtype(volume.voxels.dtype)
    header.set_data_shape(volume.voxels.shape)
    if volume.header is None or not np.allclose(
        nifti.header_affine(header), volume.affine, atol=1e-5, rtol=0
    ):
        _set_affine(header, volume.affine)
    if nifti.scaling(header) != (volume.slope, volume.intercept):
        header["scl_slope"], header["scl_inter"] = volume.slope, volume.intercept
    if provenance.get("synthetic"):
        header["descrip"] = b"synthetic, made by napari-meduet"
    compact = json.dumps(dict(provenance), separators=(",", ":"), allow_nan=False).encode()
    header.extensions.append(Nifti1Extension(nifti.COMMENT_CODE, compact))
    header["vox_offset"] = 0  # nibabel puts the voxels right after the extensions
    return header


def _set_affine(header: Nifti1Header, affine: np.ndarray) -> None:
    """Both descriptions of the grid, in the header's unit; a sheared grid fits the sform only."""
    in_unit = affine.copy()
    in_unit[:3] /= nifti.MM_PER_UNIT.get(int(header["xyzt_units"]) & 7, 1.0)
    code = int(header["sform_code"]) or int(header["qform_code"]) or SCANNER_COORDINATES
    header["pixdim"][1:4] = np.linalg.norm(in_unit[:3, :3], axis=0)
    header.set_qform(in_unit, code, strip_shears=True)
    header.set_sform(in_unit, code)
    if not np.allclose(nifti.qform(header), in_unit, atol=1e-3):
        header["qform_code"] = 0


def _write_nifti(file: BinaryIO, header: Nifti1Header, voxels: np.ndarray, compressed: bool) -> None:
    deflater = isal_zlib.compressobj(level=COMPRESSION_LEVEL, wbits=31) if compressed else None
    block = io.BytesIO()
    header.write_to(block)

    def write(data: bytes) -> None:
        file.write(data if deflater is None else deflater.compress(data))

    write(block.getvalue())
    planes = max(1, CHUNK_VOXELS // (voxels.shape[0] * voxels.shape[1]))
    for start in range(0, voxels.shape[2], planes):
        write(voxels[:, :, start : start + planes].tobytes(order="F"))
    if deflater is not None:
        file.write(deflater.flush())
