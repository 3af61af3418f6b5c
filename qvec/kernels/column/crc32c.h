/* CRC-32C (Castagnoli, RFC 3720). */
#ifndef QV_CRC32C_H
#define QV_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* The checksum of n bytes, continuing from `crc`; 0 to begin. */
uint32_t qv_crc32c(uint32_t crc, const void *data, size_t n);

#endif
