/* Kernels of each level of the machine that runs this, against the scalar ones: integers to the last bit, floats within
 * rounding. Rows end where a page without access begins. Exit code 0 where all agree; prints what does not, then a count. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#ifdef _WIN32
#include <windows.h>
#undef near
#else
#include <sys/mman.h>
#include <unistd.h>
#endif

#include "column/bitmap.h"
#include "codec/bitpack.h"
#include "codec/fastscan.h"
#include "search/filter.h"
#include "codec/rows.h"
#include "codec/simd.h"
#include "column/crc32c.h"
#include "system/system.h"
#include "ivf/lists.h"
#include "text/collect.h"
#include "text/score.h"

#define ROWS 9
#define KINDS 9

static const int DIMS[] = {1,   2,   7,   15,  16,  17,  31,  33,  63,  64,  65,  96,
                           100, 127, 128, 129, 200, 256, 384, 511, 768, 784, 1537};
static const char *const KIND_NAMES[KINDS] = {"f32",  "f16",     "int8",   "binary", "bf16",
                                              "int4", "ternary", "rabitq", "mixed"};
static int checks, failures;

static void report(int ok, const char *what, int dim, int detail) {
    checks++;
    if (ok) return;
    failures++;
    printf("differs: %s, dim %d, %d\n", what, dim, detail);
}

static uint64_t state = 88172645463325252u;
static double uniform(void) { /* xorshift64 */
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (double)(state >> 11) / 9007199254740992.0;
}

static void fill(float *x, size_t n, double spread) {
    for (size_t i = 0; i < n; i++) x[i] = (float)((uniform() + uniform() + uniform() - 1.5) * spread);
}

/* n bytes whose end is the last byte before a page that faults. */
#ifdef _WIN32
static uint8_t *fenced(size_t n) {
    size_t page = qv_page_size(), whole = qv_round_up(n, page);
    uint8_t *at = VirtualAlloc(NULL, whole + page, MEM_RESERVE | MEM_COMMIT, PAGE_READWRITE);
    DWORD before;
    if (at == NULL || !VirtualProtect(at + whole, page, PAGE_NOACCESS, &before)) abort();
    return at + whole - n;
}
#else
static uint8_t *fenced(size_t n) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE), whole = qv_round_up(n, page);
    uint8_t *at = mmap(NULL, whole + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED || mprotect(at + whole, page, PROT_NONE)) abort();
    return at + whole - n;
}
#endif

static int is_float(int kind) { return kind == QV_F32 || kind == QV_F16 || kind == QV_BF16; }

static int make(qv_codec *codec, int kind, int metric, int dim, int simd, int bits, const uint8_t *widths,
                const float *step) {
    if (kind == QV_RABITQ || kind == QV_MIXED)
        return qv_codec_init_bitpack(codec, kind, metric, dim, widths, kind == QV_MIXED ? step : NULL, simd);
    (void)bits;
    return qv_codec_init(codec, kind, metric, dim, NULL, NULL, simd);
}

/* Centroids: three rows as INT8 codes, whose norm2 is that of what they hold. */
static void center(qv_codec *codec, qv_codec *offset_codec, const float *middle, const float *x, uint8_t *offsets) {
    float held[3 * 2048];
    qv_codec_init(offset_codec, QV_INT8, QV_IP, codec->dim, NULL, NULL, codec->simd);
    qv_encode(offset_codec, x, 3, offsets);
    qv_decode(offset_codec, offsets, 3, held);
    qv_encode(offset_codec, held, 3, offsets);
    if (qv_codec_centroid(codec, middle, offset_codec, offsets, 3)) abort();
}

static void check_codec(int kind, int metric, int dim, int bits, int centered, int best) {
    static float x[ROWS * 2048], q[2048], step[2048], middle[2048];
    static uint8_t offsets[3 * 4096];
    qv_codec offset_codecs[2];
    uint8_t widths[64];
    qv_codec scalar, fast;
    fill(x, (size_t)ROWS * (size_t)dim, 3);
    fill(q, (size_t)dim, 2);
    for (int b = 0; b < qv_bitpack_blocks(dim); b++)
        widths[b] = (uint8_t)(kind == QV_MIXED ? 1 + (b + bits) % 8 : bits);
    for (int i = 0; i < 2048; i++) step[i] = 0.01f + 0.001f * (float)(i % 7);
    if (make(&scalar, kind, metric, dim, QV_SCALAR, bits, widths, step) ||
        make(&fast, kind, metric, dim, best, bits, widths, step))
        abort();
    memset(middle, 0, sizeof middle);
    fill(middle, (size_t)dim, 1);
    if (centered) {
        center(&scalar, &offset_codecs[0], middle, x, offsets);
        center(&fast, &offset_codecs[1], middle, x, offsets);
    }
    size_t bytes = (size_t)ROWS * (size_t)scalar.stride;
    uint8_t *rows = fenced(bytes), *again = fenced(bytes);
    qv_encode(&scalar, x, ROWS, rows);
    qv_encode(&fast, x, ROWS, again);
    report(memcmp(rows, again, bytes) == 0, "rows", dim, 100 * metric + kind);
    qv_query *query = qv_aligned_alloc((size_t)scalar.query_size);
    const uint8_t *address[ROWS];
    for (int r = 0; r < ROWS; r++) address[r] = rows + (size_t)r * (size_t)scalar.stride;
    for (int own = 0; own < 2; own++) {
        own ? qv_prepare_row(&scalar, rows, query) : qv_prepare(&scalar, q, query);
        for (int n = 1; n <= ROWS; n++) {
            float slow[ROWS], quick[ROWS];
            scalar.score(&scalar, query, address, n, slow);
            fast.score(&fast, query, address, n, quick);
            double bound = is_float(kind) ? 1e-5 * (1 + qv_norm2(q, dim) + 9.0 * dim) : 0;
            int same = 1;
            for (int i = 0; i < n; i++) same &= fabs((double)slow[i] - (double)quick[i]) <= bound;
            report(same, KIND_NAMES[kind], dim, 100 * metric + n);
        }
    }
    qv_aligned_free(query);
}

static void check_fastscan(int dims, int best) {
    static float residual[4096], q[4096];
    uint8_t *codes = fenced(qv_fs_bytes(dims)), *table = qv_aligned_alloc(qv_fs_bytes(dims));
    int32_t slow[QV_FS_VECTORS], quick[QV_FS_VECTORS];
    for (int v = 0; v < QV_FS_VECTORS; v++) {
        fill(residual, (size_t)dims, 1);
        qv_fs_put(residual, dims, v, codes);
    }
    fill(q, (size_t)dims, 1);
    qv_fs_table(q, dims, table);
    qv_fs_sums(QV_SCALAR)(codes, table, dims, slow);
    qv_fs_sums(best)(codes, table, dims, quick);
    report(memcmp(slow, quick, sizeof slow) == 0, "fastscan", dims, 0);
    qv_aligned_free(table);
}

static void check_filter(int n, int best) {
    float key[128], again[128];
    uint32_t row[128], slow[128], quick[128];
    fill(key, 128, 1);
    memcpy(again, key, sizeof key);
    for (int i = 0; i < 128; i++) row[i] = (uint32_t)i * 7;
    int a = QV_FILTERS[QV_SCALAR](key, row, n, 0.1f, slow), b = QV_FILTERS[best](again, row, n, 0.1f, quick);
    size_t size = (size_t)a * 4;
    report(a == b && memcmp(slow, quick, size) == 0 && memcmp(key, again, size) == 0, "filter", n, a);
}

static void check_crc(size_t n) {
    uint8_t *data = fenced(n);
    uint32_t bitwise = 0xFFFFFFFFu;
    for (size_t i = 0; i < n; i++) {
        data[i] = (uint8_t)(uniform() * 256);
        bitwise ^= data[i];
        for (int bit = 0; bit < 8; bit++) bitwise = bitwise >> 1 ^ (0x82F63B78u & -(bitwise & 1));
    }
    report(qv_crc32c(0, data, n) == (bitwise ^ 0xFFFFFFFFu), "crc32c", (int)n, 0);
}

static void check_project(int dim, int best) {
    static float x[3 * 256], panels[256 * 2 * QV_PANEL], slow[3 * 2 * QV_PANEL], quick[3 * 2 * QV_PANEL];
    fill(x, 3 * (size_t)dim, 1);
    fill(panels, (size_t)dim * 2 * QV_PANEL, 1);
    qv_project(x, 3, dim, panels, 2, QV_SCALAR, slow);
    qv_project(x, 3, dim, panels, 2, best, quick);
    int same = 1;
    for (int i = 0; i < 3 * 2 * QV_PANEL; i++) same &= fabsf(slow[i] - quick[i]) <= 1e-5f * (float)(dim + 1);
    report(same, "project", dim, 0);
}

static void check_between(uint32_t n, int best) {
    uint64_t bounds[20], slow[16] = {0}, quick[16] = {0};
    qv_column values;
    if (qv_column_init(&values, 1, 0, 8 * QV_WORD_ROWS, 7, 1, 4096, 1, 0) || qv_column_resize(&values, 3)) abort();
    for (uint32_t w = 0; w < 16; w++) {
        uint64_t *row = (uint64_t *)qv_row_mut(&values, w);
        for (int i = 0; i < QV_WORD_ROWS; i++) row[i] = (uint64_t)(uniform() * 4) << 62 | (uint64_t)(uniform() * 8);
    }
    for (int i = 0; i < 20; i++) bounds[i] = ((uint64_t)i / 5) << 62 | (uint64_t)(i % 5);
    for (uint32_t ranges = 1; ranges <= 10; ranges++) {
        int failed = qv_bits_between(&values, n, bounds, ranges, QV_SCALAR, slow);
        failed |= qv_bits_between(&values, n, bounds, ranges, best, quick);
        report(!failed && memcmp(slow, quick, sizeof slow) == 0, "between", (int)n, (int)ranges);
    }
    qv_column_free(&values);
}

/* Bounds of the entries of a block of a list. */
static void check_below(int dims, int best) {
    static float q[256], residual[256];
    qv_lists lists = {.dims = dims, .sums = qv_fs_sums(QV_SCALAR)};
    qv_list_block *block = qv_aligned_alloc(sizeof *block + qv_fs_bytes(dims));
    uint8_t *table = qv_aligned_alloc(qv_fs_bytes(dims));
    qv_estimate_terms terms = {.base = 0.5f, .along = 1, .unit = 0.001f, .distance = 0.7f};
    for (int v = 0; v < QV_FS_VECTORS; v++) {
        fill(residual, (size_t)dims, 1);
        qv_fs_put(residual, dims, v, (uint8_t *)(block + 1));
        block->add[v] = (float)uniform();
        block->rescale[v] = (float)uniform();
        block->error[v] = (float)uniform();
    }
    fill(q, (size_t)dims, 1);
    qv_fs_table(q, dims, table);
    for (int i = 0; i < 40; i++) {
        float bound = 0.1f * (float)i - 1, estimates[2][QV_FS_VECTORS];
        lists.l2.simd = QV_SCALAR;
        uint32_t slow = qv_list_below(&lists, block, table, &terms, bound, estimates[0]);
        lists.l2.simd = best;
        uint32_t quick = qv_list_below(&lists, block, table, &terms, bound, estimates[1]);
        int same = slow == quick;
        for (int v = 0; v < QV_FS_VECTORS; v++) same &= fabsf(estimates[0][v] - estimates[1][v]) <= 1e-5f * (float)dims;
        report(same, "below", dims, i);
    }
    qv_aligned_free(block);
    qv_aligned_free(table);
}

/* Positions and values of the sums above a limit; some sums are equal to it. */
static void check_collect(uint32_t n, int best) {
    size_t room = (n + 16) * 4;
    float *sums = (float *)fenced(n * 4), slow_sums[QV_WINDOW + 16], quick_sums[QV_WINDOW + 16];
    uint32_t slow[QV_WINDOW + 16], quick[QV_WINDOW + 16];
    for (int limit = -1; limit <= 8; limit++) {
        memset(slow, 0, room), memset(quick, 0, room);
        for (uint32_t i = 0; i < n; i++) sums[i] = (float)(int)(uniform() * 9);
        uint32_t a = qv_collect[QV_SCALAR](sums, n, (float)limit, slow, slow_sums);
        uint32_t b = qv_collect[best](sums, n, (float)limit, quick, quick_sums);
        int same = a == b && memcmp(slow, quick, a * 4) == 0 && memcmp(slow_sums, quick_sums, a * 4) == 0;
        report(same, "collect", (int)n, limit);
    }
}

/* Scores of postings, equal to the last bit. */
static void check_contribute(uint32_t n, int best) {
    static float norms[QV_WINDOW];
    uint32_t start = 3 * QV_WINDOW;
    uint32_t *rows = (uint32_t *)fenced(n * 4), *values = (uint32_t *)fenced(n * 4);
    float *slow = (float *)fenced(n * 4), *quick = (float *)fenced(n * 4);
    for (int i = 0; i < QV_WINDOW; i++) norms[i] = 0.3f + (float)uniform();
    for (uint32_t i = 0; i < n; i++) {
        rows[i] = start + (uint32_t)(uniform() * QV_WINDOW);
        values[i] = 1 + (uint32_t)(uniform() * (i % 3 ? 9 : 70000));
    }
    for (int sparse = 0; sparse < 2; sparse++) {
        qv_contribute[QV_SCALAR](rows, values, n, start, sparse ? NULL : norms, 1.7f, slow);
        qv_contribute[best](rows, values, n, start, sparse ? NULL : norms, 1.7f, quick);
        report(memcmp(slow, quick, n * 4) == 0, "contribute", (int)n, sparse);
    }
}

static void check_level(int level) {
    for (size_t d = 0; d < sizeof DIMS / sizeof *DIMS; d++)
        for (int metric = QV_L2; metric <= QV_COSINE; metric++)
            for (int kind = 0; kind < KINDS; kind++)
                for (int bits = 1; bits <= (kind == QV_RABITQ || kind == QV_MIXED ? 8 : 1); bits++)
                    for (int centered = 0; centered <= (kind >= QV_INT4); centered++)
                        check_codec(kind, metric, DIMS[d], bits, centered, level);
    for (int dims = 16; dims <= 2048; dims += 16) check_fastscan(dims, level);
    for (int n = 0; n <= 128; n++) check_filter(n, level);
    for (int dim = 1; dim <= 256; dim += 17) check_project(dim, level);
    for (uint32_t n = 1; n <= 1024; n += 31) check_between(n, level);
    for (int dims = 16; dims <= 256; dims += 48) check_below(dims, level);
    for (uint32_t n = 64; n <= QV_WINDOW; n *= 2) check_collect(n, level);
    for (uint32_t n = 1; n <= 128; n++) check_contribute(n, level);
}

/* What system.h promises, with a file in the current folder. */
static void check_system(void) {
    size_t bytes = 3 * QV_HUGE_PAGE + 1, sum = 0;
    uint8_t *huge = qv_huge_alloc(bytes), *aligned = qv_aligned_alloc(1000);
    report(huge && (uintptr_t)huge % QV_HUGE_PAGE == 0, "huge pages", 0, 0);
    report(aligned && (uintptr_t)aligned % 64 == 0, "aligned memory", 0, 0);
    if (!huge || !aligned) return;
    for (size_t i = 0; i < bytes; i++) sum += huge[i];
    report(sum == 0, "zeros", 0, 0);
    memset(huge, 7, bytes);
    qv_plain_pages(huge, bytes);
    qv_drop_pages(huge + QV_HUGE_PAGE, QV_HUGE_PAGE);
    report(huge[0] == 7 && huge[bytes - 1] == 7, "pages that were kept", 0, 0);
    report(qv_huge_alloc(SIZE_MAX - 5) == NULL && qv_huge_alloc((size_t)1 << 62) == NULL, "no memory", 0, 0);

    FILE *file = fopen("kernels.bin", "wb+");
    report(file != NULL, "file", 0, 0);
    if (file) {
        fwrite(huge, 1, bytes, file);
        fputs("\n\r\x1a!", file);
        fflush(file);
        qv_request_file(fileno(file), 0, bytes);
        report(!qv_read_file(fileno(file), aligned, 4, bytes) && !memcmp(aligned, "\n\r\x1a!", 4), "read", 0, 0);
        report(qv_read_file(fileno(file), aligned, 5, bytes) == -1, "read past the end", 0, 0);
        fclose(file);
    }
    uint64_t reads, faults, before = qv_now();
    report(qv_count_reads(&reads, &faults) == 0, "reads are counted", 0, 0);
    report(qv_now() >= before && qv_page_size() >= 4096, "clock and pages", 0, 0);
    qv_request_pages(huge, bytes);
    qv_trim_heap();
    qv_huge_free(huge, bytes);
    qv_aligned_free(aligned);
}

int main(void) {
    check_system();
    for (size_t n = 1; n < 40000; n = n * 5 / 4 + 1) check_crc(n);
    for (int level = QV_SCALAR + 1; level < QV_SIMD_LEVELS; level++) {
        if (!qv_simd_supported(level)) continue;
        check_level(level);
        printf("%s: %d checks so far, %d failed\n", qv_simd_names[level], checks, failures);
    }
    return failures != 0;
}
