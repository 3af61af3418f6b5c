# Checks of the arguments of bit-packed codes (kinds "rabitq" and "mixed").

cdef tuple _BITPACK = ("rabitq", "mixed")


cdef int _check_packing(str kind, object bits, object widths, object lower, object step) except -1:
    if (bits is not None) != (kind == "rabitq"):
        raise ValueError(f"bits go with kind rabitq, and it with them, not with {kind}")
    if (widths is not None) != (kind == "mixed"):
        raise ValueError(f"widths go with kind mixed, and it with them, not with {kind}")
    if kind in _BITPACK and (lower is not None or (step is not None) != (kind == "mixed")):
        raise ValueError("kind mixed takes step, and kind rabitq none; neither takes lower")
    return 0


cdef cnp.ndarray _block_widths(object bits, object widths, int dim):
    """A copy of the widths of each 64 dimensions, or `bits` for all of them: uint8 [ceil(dim / 64)]."""
    cdef cnp.npy_intp blocks = (dim + 63) // 64
    cdef cnp.ndarray copy = cnp.PyArray_ZEROS(1, &blocks, cnp.NPY_UINT8, 0)
    if bits is None:
        copy[:] = _vector(widths, "widths", cnp.NPY_UINT8, blocks)
        if copy.max() > 8 or copy.max() == 0:
            raise ValueError(f"widths must be at most 8, and not all 0: the largest is {copy.max()}")
    else:
        if not isinstance(bits, int) or not 1 <= bits <= 8:
            raise ValueError(f"bits must be in 1..8, not {bits}")
        copy[:] = bits
    return copy
