/* Kernels of tile.c that are the same on every level, except for the instructions that the compiler uses. tile.c includes
 * this file once per level, with TARGET, LEVEL(name) and MASK(keys, limits): the bits of those of 16 keys that do not
 * exceed their limits. */

/* The k-th smallest of n_minima values per lane; out[16]. k is at most QV_NEAREST_MAX. */
TARGET static void LEVEL(limits)(const int32_t *minima, size_t pitch, int n_minima, int k, int32_t *out) {
    int32_t best[QV_NEAREST_MAX][QV_TILE_COLUMNS];
    for (int q = 0; q < k; q++)
        for (int l = 0; l < QV_TILE_COLUMNS; l++) best[q][l] = QV_NO_KEY;
    for (int t = 0; t < n_minima; t++) {
        int32_t v[QV_TILE_COLUMNS];
        memcpy(v, minima + (size_t)t * pitch, sizeof v);
        for (int q = 0; q < k; q++)
            for (int l = 0; l < QV_TILE_COLUMNS; l++) {
                int32_t low = v[l] < best[q][l] ? v[l] : best[q][l];
                v[l] = v[l] < best[q][l] ? best[q][l] : v[l];
                best[q][l] = low;
            }
    }
    for (int l = 0; l < QV_TILE_COLUMNS; l++) out[l] = best[k - 1][l] < QV_NO_KEY ? best[k - 1][l] : QV_NO_KEY - 1;
}

TARGET static int LEVEL(nearest)(const int32_t *keys, int n_panels, int k, qv_near *near) {
    int32_t minima[QV_TILE_COLUMNS], limit[QV_TILE_COLUMNS];
    for (int l = 0; l < QV_TILE_COLUMNS; l++) minima[l] = QV_NO_KEY;
    for (int g = 0; g < n_panels; g++)
        for (int l = 0; l < QV_TILE_COLUMNS; l++) {
            int32_t v = keys[g * QV_TILE_COLUMNS + l];
            minima[l] = v < minima[l] ? v : minima[l];
        }
    int32_t kth = kth_smallest(minima, k);
    for (int l = 0; l < QV_TILE_COLUMNS; l++) limit[l] = kth;
    int n = 0;
    for (int g = 0; g < n_panels; g++)
        for (uint32_t hits = MASK(keys + g * QV_TILE_COLUMNS, limit); hits; hits &= hits - 1) {
            uint32_t column = (uint32_t)(g * QV_TILE_COLUMNS + __builtin_ctz(hits));
            n = insert_near(near, n, k, keys[column], column);
        }
    return n;
}

TARGET static void LEVEL(leaf)(const int32_t *keys, size_t pitch, int m, int k, int32_t *minima, qv_near *near,
                               uint8_t *found) {
    int n_panels = qv_panels(m);
    size_t width = (size_t)n_panels * QV_TILE_COLUMNS;
    int32_t *across = minima, *down = minima + 16 * width, *limit = minima + 24 * width;
    for (size_t i = 0; i < 24 * width; i++) minima[i] = QV_NO_KEY;
    for (int i = 0; i < m; i++) {
        int32_t lanes[QV_TILE_COLUMNS], *column = down + (size_t)(i % 8) * width;
        for (int l = 0; l < QV_TILE_COLUMNS; l++) lanes[l] = QV_NO_KEY;
        for (size_t j = (size_t)(i / QV_TILE_COLUMNS) * QV_TILE_COLUMNS; j < width; j += QV_TILE_COLUMNS) {
            const int32_t *v = keys + (size_t)i * pitch + j;
            for (int l = 0; l < QV_TILE_COLUMNS; l++) lanes[l] = v[l] < lanes[l] ? v[l] : lanes[l];
            for (int l = 0; l < QV_TILE_COLUMNS; l++) column[j + l] = v[l] < column[j + l] ? v[l] : column[j + l];
        }
        for (int l = 0; l < QV_TILE_COLUMNS; l++) across[(size_t)l * width + (size_t)i] = lanes[l];
    }
    for (size_t j = 0; j < width; j += QV_TILE_COLUMNS) LEVEL(limits)(minima + j, width, 24, k, limit + j);
    for (int i = 0; i < m; i++) found[i] = 0;
    for (int i = 0; i < m; i++) {
        int32_t own[QV_TILE_COLUMNS];
        for (int l = 0; l < QV_TILE_COLUMNS; l++) own[l] = limit[i];
        for (int g = i / QV_TILE_COLUMNS; g < n_panels; g++) {
            const int32_t *v = keys + (size_t)i * pitch + (size_t)g * QV_TILE_COLUMNS;
            uint32_t hits = MASK(v, own), back = MASK(v, limit + g * QV_TILE_COLUMNS);
            for (; hits; hits &= hits - 1) {
                int l = __builtin_ctz(hits);
                found[i] =
                    (uint8_t)insert_near(near + (size_t)i * k, found[i], k, v[l], (uint32_t)(g * QV_TILE_COLUMNS + l));
            }
            for (; back; back &= back - 1) {
                int l = __builtin_ctz(back), j = g * QV_TILE_COLUMNS + l;
                found[j] = (uint8_t)insert_near(near + (size_t)j * k, found[j], k, v[l], (uint32_t)i);
            }
        }
    }
}

#undef TARGET
#undef LEVEL
#undef MASK
