/* Memory in whole huge pages, and what malloc keeps. */
#ifndef QV_MEMORY_H
#define QV_MEMORY_H

#include <stddef.h>
#include <stdint.h>

#define QV_HUGE_PAGE ((size_t)2 << 20)

/* Zeros in huge pages, where the system has them; the same number of bytes gives them back. */
uint8_t *qv_huge_alloc(size_t bytes);
void qv_huge_free(uint8_t *memory, size_t bytes);

/* Give back what malloc keeps of what was freed; glibc alone is asked. */
void qv_trim_heap(void);

#endif
