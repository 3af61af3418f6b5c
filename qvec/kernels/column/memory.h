/* Memory in whole huge pages, and release of malloc's unused memory. */
#ifndef QV_MEMORY_H
#define QV_MEMORY_H

#include <stddef.h>
#include <stdint.h>

#define QV_HUGE_PAGE ((size_t)2 << 20)

/* Zeros in huge pages if the system has them. The same number of bytes must be passed to release
 * them. */
uint8_t *qv_huge_alloc(size_t bytes);
void qv_huge_free(uint8_t *memory, size_t bytes);

/* Take such memory in usual pages, as it is written: a huge page costs as much as hundreds of them. */
void qv_plain_pages(uint8_t *memory, size_t bytes);

/* Bytes of a page of the system. */
size_t qv_page_size(void);

/* Return malloc's unused memory to the system; with glibc only. */
void qv_trim_heap(void);

#endif
