# cython: language_level=3
from libc.stddef cimport size_t
from libc.stdint cimport int32_t, uint8_t, uint32_t

include "arrays.pxi"
include "bitpack.pxi"

cdef extern from "codec/codec.h" nogil:
    ctypedef struct qv_factors:
        float scale
        float norm2

    ctypedef struct qv_query:
        pass

    ctypedef struct qv_codec:
        int32_t kind, metric, simd, dim, data_size, stride, query_size, has_factors
        const float *lower
        const float *step
        int32_t rounding, integers, n_offsets
        void (*score)(const qv_codec *codec, const qv_query *query, const uint8_t **rows, int n,
                      float *keys) noexcept nogil

    int qv_codec_init_bitpack(qv_codec *codec, int kind, int metric, int dim, const uint8_t *widths, const float *step,
                              int simd) noexcept
    int qv_codec_centroid(qv_codec *codec, const float *center, const qv_codec *offset_codec, const uint8_t *offsets,
                        int n) noexcept
    int qv_codec_init(qv_codec *codec, int kind, int metric, int dim, const float *lower, const float *step,
                      int simd) noexcept
    void qv_encode(const qv_codec *codec, const float *x, size_t n, uint8_t *rows) noexcept
    void qv_decode(const qv_codec *codec, const uint8_t *rows, size_t n, float *x) noexcept
    void qv_prepare(const qv_codec *codec, const float *q, qv_query *out) noexcept
    void qv_prepare_row(const qv_codec *codec, const uint8_t *row, qv_query *out) noexcept
    int QV_MAX_CENTROIDS
    void qv_transform(const float *x, size_t n, int dim, int padded, int normalize, const float *mean,
                      const uint8_t *signs, float *out) noexcept

cdef extern from "codec/simd.h" nogil:
    const char **qv_simd_names
    int QV_SIMD_LEVELS
    int qv_simd_compiled(int level) noexcept
    int qv_simd_best() noexcept
    int qv_simd_supported(int level) noexcept

cdef tuple _KINDS = ("f32", "f16", "int8", "binary", "bf16", "int4", "ternary", "rabitq", "mixed")
cdef tuple _CENTERED = ("int4", "ternary", "rabitq", "mixed")
cdef tuple _ROUNDINGS = ("nearest", "truncate")
cdef tuple _METRICS = ("l2", "ip", "cosine")
cdef tuple _LEVELS = tuple([qv_simd_names[level].decode() for level in range(QV_SIMD_LEVELS)])

if qv_simd_best() < 0:
    import os
    raise ValueError("QVEC_SIMD must be one of %s, not %r" % (
        ", ".join([_LEVELS[level] for level in range(QV_SIMD_LEVELS) if qv_simd_compiled(level)]),
        os.environ.get("QVEC_SIMD")))


def simd_level():
    """The instruction set that kernels use by default: the best of `simd_levels`."""
    return _LEVELS[qv_simd_best()]


def simd_levels():
    """Instruction sets that this machine supports, up to the cap of QVEC_SIMD, ascending."""
    return [_LEVELS[level] for level in range(QV_SIMD_LEVELS) if qv_simd_supported(level)]


cdef int _level(object simd) except -1:
    """Number of a level by its name; None is the best."""
    if simd is None:
        return qv_simd_best()
    _one_of("simd", simd, tuple(simd_levels()))
    return _LEVELS.index(simd)


cdef int _check_affine(str kind, object lower, object step) except -1:
    if (lower is None) != (step is None):
        raise ValueError("lower and step must be given together")
    if step is not None and kind not in ("int8", "int4"):
        raise ValueError(f"lower and step are for kinds int8 and int4 only, not {kind}")
    return 0


cdef int _check_centered(str kind, object step, object center, object offsets) except -1:
    if center is not None and (kind not in _CENTERED or kind == "int4" and step is not None):
        raise ValueError(f"center is for kinds {', '.join(_CENTERED)} where vectors have their own scale, not for {kind}")
    if offsets is not None and center is None:
        raise ValueError("offsets go with a center")
    return 0


cdef int _check_modes(str kind, object step, bint integers, int rounding) except -1:
    if integers and (kind != "int8" or step is not None):
        raise ValueError("integers is for kind int8 without lower and step only")
    if rounding and step is None:
        raise ValueError("rounding goes with lower and step only")
    return 0


cdef cnp.ndarray _per_dimension(object values, str name, int dim):
    """A copy of `values`, padded with zeros to a multiple of 64 dimensions."""
    cdef cnp.ndarray checked = _vector(values, name, cnp.NPY_FLOAT32, dim)
    cdef const float *source = <const float *> cnp.PyArray_DATA(checked)
    cdef cnp.npy_intp padded = (dim + 63) // 64 * 64
    cdef cnp.ndarray copy = cnp.PyArray_ZEROS(1, &padded, cnp.NPY_FLOAT32, 0)
    cdef float *target = <float *> cnp.PyArray_DATA(copy)
    cdef int i
    for i in range(dim):
        if source[i] - source[i] != 0:
            raise ValueError(f"{name}[{i}] must be finite, not {source[i]}")
        target[i] = source[i]
    return copy


cdef int _check_factors(object rows, int data_size) except -1:
    factors = rows[:, data_size:data_size + 8].copy().view("f4")
    bad = ~((factors[:, 0] >= 0) & (factors[:, 1] >= 0) & (factors < float("inf")).all(axis=1))
    if bad.any():
        raise ValueError(f"offsets[{int(bad.argmax())}] has factors that are negative or not finite")
    return 0


cdef void _score_tiles(const qv_codec *codec, const uint8_t *queries, Py_ssize_t nq, const uint8_t *rows, Py_ssize_t n,
                       float *keys) noexcept nogil:
    """Score rows in tiles of 64, each against all queries while it is in the cache."""
    cdef const uint8_t *tile[64]
    cdef Py_ssize_t start, i, q, count
    for start in range(0, n, 64):
        count = min(n - start, <Py_ssize_t> 64)
        for i in range(count):
            tile[i] = rows + (start + i) * codec.stride
        for q in range(nq):
            codec.score(codec, <const qv_query *> (queries + q * codec.query_size), tile, <int> count,
                        keys + q * n + start)


cdef class Codec:
    """A way to store vectors of `dim` float32 values as rows of bytes, and to score these rows against queries.

    Keys are squared L2 distances ("l2"), negated dot products ("ip") or 1 - cosine ("cosine"). For kind "binary" they
    are the number of differing signs, with any metric. Smaller is nearer. Vectors are [dim] or [n, dim] and finite.
    Wrong arguments raise TypeError (no array, another dtype) or ValueError (shape, layout, choice or range).

    :param lower: float32 [dim], with `step` makes "int8" and "int4" static: x = lower + step * code per dimension. Copied.
    :param integers: "int8" only: vectors of integers in -128..127 are stored unchanged, and such queries are exact.
    :param rounding: static codes only: "nearest", or "truncate" towards the middle code.
    :param bits: "rabitq" only: bits of each dimension, 1 to 8.
    :param widths: "mixed" only: uint8 [ceil(dim / 64)], bits of each 64 dimensions, 0 to 8, not all 0; with `step`,
        float32 [dim], positive: the width of a code in each dimension, as a share of the vector's length.
    :param center: kinds with a scale per vector ("int4", "ternary", "rabitq", "mixed"): float32 [dim], subtracted
        from vectors after normalizing under "cosine"; also from queries, except under "ip". Copied.
    :param offsets: with `center`, centroids: uint8 [2..256, stride] rows of Codec("int8", "ip", dim), each a
        centroid minus `center`, with the norm2 of the decoded row (:func:`offset_rows`). A vector is coded around the nearest. Copied.
    :param simd: one of `simd_levels()`; default `simd_level()`.
    """

    cdef qv_codec c
    cdef qv_codec offset_codec
    cdef cnp.ndarray _lower, _step, _widths, _center, _offsets

    def __cinit__(self, str kind, str metric, dim, *, lower=None, step=None, bint integers=False, str rounding="nearest", simd=None, bits=None, widths=None, center=None,
                  offsets=None):
        cdef int kind_code = _one_of("kind", kind, _KINDS), metric_code = _one_of("metric", metric, _METRICS)
        cdef int size = _dimension("dim", dim), level = _level(simd)
        cdef const float *lower_data = NULL
        cdef const float *step_data = NULL
        cdef int rounding_code = _one_of("rounding", rounding, _ROUNDINGS)
        _check_modes(kind, step, integers, rounding_code)
        _check_packing(kind, bits, widths, lower, step)
        _check_centered(kind, step, center, offsets)
        if kind in _BITPACK:
            self._init_bitpack(kind_code, metric_code, size, level, bits, widths, step)
            self._init_centroid(center, offsets)
            return
        _check_affine(kind, lower, step)
        if lower is not None:
            self._lower = _per_dimension(lower, "lower", size)
            lower_data = <const float *> cnp.PyArray_DATA(self._lower)
        if step is not None:
            self._step = _per_dimension(step, "step", size)
            if (self._step < 0).any():
                raise ValueError(f"step must not be negative: step[{int((self._step < 0).argmax())}]")
            step_data = <const float *> cnp.PyArray_DATA(self._step)
        if qv_codec_init(&self.c, kind_code, metric_code, size, lower_data, step_data, level) != 0:
            raise ValueError(f"no codec of kind {kind}, metric {metric}, dim {size} at level {_LEVELS[level]}")
        self._init_centroid(center, offsets)
        self.c.integers = integers
        self.c.rounding = rounding_code

    cdef int _init_bitpack(self, int kind, int metric, int dim, int level, object bits, object widths,
                           object step) except -1:
        cdef const float *step_data = NULL
        self._widths = _block_widths(bits, widths, dim)
        if step is not None:
            self._step = _per_dimension(step, "step", dim)
            if not (self._step[:dim] > 0).all():
                raise ValueError(f"step must be positive: step[{int((self._step[:dim] > 0).argmin())}]")
            step_data = <const float *> cnp.PyArray_DATA(self._step)
        if qv_codec_init_bitpack(&self.c, kind, metric, dim, <const uint8_t *> cnp.PyArray_DATA(self._widths), step_data,
                                 level) != 0:
            raise ValueError(f"no codec of kind {_KINDS[kind]}, dim {dim} and these widths at level {_LEVELS[level]}")
        return 0

    cdef int _init_centroid(self, object center, object offsets) except -1:
        cdef cnp.ndarray rows
        cdef const uint8_t *offset_data = NULL
        cdef int n = 0
        if center is None:
            return 0
        self._center = _per_dimension(center, "center", self.c.dim)
        qv_codec_init(&self.offset_codec, _KINDS.index("int8"), _METRICS.index("ip"), self.c.dim, NULL, NULL, self.c.simd)
        if offsets is not None:
            rows = _checked(offsets, "offsets", cnp.NPY_UINT8, self.offset_codec.stride)
            if not 2 <= _count(rows) <= QV_MAX_CENTROIDS:
                raise ValueError(f"there must be 2 to {QV_MAX_CENTROIDS} offsets, not {_count(rows)}")
            self._offsets = rows.copy()
            _check_factors(self._offsets, self.offset_codec.data_size)
            offset_data = <const uint8_t *> cnp.PyArray_DATA(self._offsets)
            n = <int> _count(self._offsets)
        qv_codec_centroid(&self.c, <const float *> cnp.PyArray_DATA(self._center), &self.offset_codec, offset_data, n)
        return 0

    @property
    def kind(self):
        return _KINDS[self.c.kind]

    @property
    def metric(self):
        return _METRICS[self.c.metric]

    @property
    def dim(self):
        return self.c.dim

    @property
    def data_size(self):
        """Bytes of a row without its factors."""
        return self.c.data_size

    @property
    def spare_bytes(self):
        """Bytes at the end of a row that no kernel uses. F16 rows have their unit behind the factors."""
        factors = 8 if self.c.has_factors else 0
        return self.c.stride - self.c.data_size - factors - (4 if _KINDS[self.c.kind] == "f16" else 0)

    @property
    def stride(self):
        """Bytes of a row, padding included."""
        return self.c.stride

    @property
    def query_size(self):
        """Bytes of a prepared query."""
        return self.c.query_size

    @property
    def n_centroids(self):
        """Number of centroids."""
        return self.c.n_offsets

    @property
    def has_factors(self):
        """Whether a row contains its scale and squared norm."""
        return bool(self.c.has_factors)

    @property
    def has_ranges(self):
        """Whether a dimension's step is the same for all rows."""
        return self.c.step != NULL

    @property
    def simd(self):
        return _LEVELS[self.c.simd]

    def encode(self, x):
        """Rows of float32 vectors: uint8 [n, stride], the first on a 64-byte boundary."""
        cdef cnp.ndarray vectors = _checked(x, "x", cnp.NPY_FLOAT32, self.c.dim)
        cdef Py_ssize_t n = _count(vectors)
        cdef cnp.ndarray rows = _aligned(n, self.c.stride)
        cdef const float *source = <const float *> cnp.PyArray_DATA(vectors)
        cdef uint8_t *target = <uint8_t *> cnp.PyArray_DATA(rows)
        with nogil:
            qv_encode(&self.c, source, n, target)
        return rows

    def decode(self, rows):
        """Float32 [n, dim] of uint8 rows [n, stride], as near to the vectors as the code allows.

        "f32" returns the vectors exactly. Under cosine, kinds with factors, except floats, return unit vectors.
        "binary" returns signs, -1 or 1.
        """
        cdef cnp.ndarray checked = _checked(rows, "rows", cnp.NPY_UINT8, self.c.stride)
        cdef Py_ssize_t n = _count(checked)
        cdef cnp.ndarray vectors = _floats(n, self.c.dim)
        cdef const uint8_t *source = <const uint8_t *> cnp.PyArray_DATA(checked)
        cdef float *target = <float *> cnp.PyArray_DATA(vectors)
        with nogil:
            qv_decode(&self.c, source, n, target)
        return vectors

    def prepare(self, q):
        """Queries for `score`: uint8 [nq, query_size] of float32 [dim] or [nq, dim]."""
        cdef cnp.ndarray vectors = _checked(q, "q", cnp.NPY_FLOAT32, self.c.dim)
        cdef Py_ssize_t i, n = _count(vectors)
        cdef cnp.ndarray queries = _aligned(n, self.c.query_size)
        cdef const float *source = <const float *> cnp.PyArray_DATA(vectors)
        cdef uint8_t *target = <uint8_t *> cnp.PyArray_DATA(queries)
        with nogil:
            for i in range(n):
                qv_prepare(&self.c, source + i * self.c.dim, <qv_query *> (target + i * self.c.query_size))
        return queries

    def prepare_rows(self, rows):
        """Stored rows as queries of graph construction, whose keys are squared L2 in the space of the graph."""
        cdef cnp.ndarray checked = _checked(rows, "rows", cnp.NPY_UINT8, self.c.stride)
        cdef Py_ssize_t i, n = _count(checked)
        cdef cnp.ndarray queries = _aligned(n, self.c.query_size)
        cdef const uint8_t *source = <const uint8_t *> cnp.PyArray_DATA(checked)
        cdef uint8_t *target = <uint8_t *> cnp.PyArray_DATA(queries)
        with nogil:
            for i in range(n):
                qv_prepare_row(&self.c, source + i * self.c.stride, <qv_query *> (target + i * self.c.query_size))
        return queries

    def score(self, prepared, rows):
        """Keys, float32 [nq, n], of uint8 rows [n, stride] against prepared queries [nq, query_size]."""
        cdef cnp.ndarray queries = _checked(prepared, "prepared", cnp.NPY_UINT8, self.c.query_size)
        cdef cnp.ndarray checked = _checked(rows, "rows", cnp.NPY_UINT8, self.c.stride)
        cdef const uint8_t *query = <const uint8_t *> cnp.PyArray_DATA(queries)
        cdef const uint8_t *row = <const uint8_t *> cnp.PyArray_DATA(checked)
        if <size_t> query & 63:
            raise ValueError("prepared must begin on a 64-byte boundary, as prepare() returns it")
        cdef Py_ssize_t nq = _count(queries), n = _count(checked)
        cdef cnp.ndarray keys = _floats(nq, n)
        cdef float *out = <float *> cnp.PyArray_DATA(keys)
        with nogil:
            _score_tiles(&self.c, query, nq, row, n, out)
        return keys


include "vectors.pxi"


def offset_rows(offsets):
    """Encode offsets of centroids, float32 [n, dim], as Codec takes them, with the norm2 of the decoded offset."""
    codec = Codec("int8", "ip", _last_dim(offsets))
    return codec.encode(codec.decode(codec.encode(offsets)))


def offset_values(rows, dim):
    """The decoded rows of :func:`offset_rows`, float32 [n, dim]."""
    return Codec("int8", "ip", dim).decode(rows)
