# cython: language_level=3
"""Typed edge of the C kernels: check, release the GIL, call. One file per concern, included below."""

include "kernels/codec.pxi"
include "kernels/project.pxi"
include "kernels/fastscan.pxi"
include "kernels/memory.pxi"
include "kernels/column.pxi"
include "kernels/bitmap.pxi"
include "kernels/search.pxi"
include "kernels/graph.pxi"
include "kernels/mend.pxi"
include "kernels/nodes.pxi"
include "kernels/ivf.pxi"
