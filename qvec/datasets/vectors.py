"""Vectors from a file of any known format, by its suffix."""

from __future__ import annotations

from qvec.common.errors import InputError
from qvec.datasets import bigann, texmex
from qvec.datasets.annbenchmarks import load_hdf5
from qvec.datasets.files import Matrix, PathLike, existing_file
from qvec.datasets.numpy_files import load_npy, load_npz
from qvec.datasets.text_files import TEXT_SUFFIXES, load_text

HDF5_SUFFIXES = (".hdf5", ".h5")
SUFFIXES = (".npy", ".npz", *texmex.DTYPES, *bigann.DTYPES, *HDF5_SUFFIXES)


def load_vectors(path: PathLike, key: str | None = None) -> Matrix:
    """Load the vectors of a file: (n, dim), of the dtype of the file.

    ================================  ==================  ==========================================
    suffix                            result              the array, if a file has several
    ================================  ==================  ==========================================
    ``.npy``                          mapped read-only
    ``.npz``                          in memory           ``key``, else the only one
    ``.fvecs .bvecs .ivecs``          mapped read-only
    ``.fbin .u8bin .i8bin .ibin``     mapped read-only
    ``.hdf5 .h5`` (extra ``hdf5``)    in memory           ``key``, else ``train``, else the only one
    ``.jsonl .ndjson .csv .tsv``      in memory
    ================================  ==================  ==========================================

    Raises NotFoundError; InputError if the suffix is unknown, the content does not match it, or ``key`` does not
    exist; MissingExtraError.
    """
    file = existing_file(path)
    suffix = file.suffix.lower()
    if key is not None and suffix not in (".npz", *HDF5_SUFFIXES):
        raise InputError(f"{file}: key={key!r} is for files that hold several arrays (.npz, .hdf5)")
    if suffix == ".npy":
        return load_npy(file)
    if suffix == ".npz":
        return load_npz(file, key)
    if suffix in texmex.DTYPES:
        return texmex.load_texmex(file)
    if suffix in bigann.DTYPES:
        return bigann.load_bigann(file)
    if suffix in HDF5_SUFFIXES:
        return load_hdf5(file, key)
    if suffix in TEXT_SUFFIXES:
        return load_text(file)
    raise InputError(f"{file}: unknown suffix {suffix!r}; known are {' '.join((*SUFFIXES, *TEXT_SUFFIXES))}")
