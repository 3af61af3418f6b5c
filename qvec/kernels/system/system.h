/* What differs between operating systems: posix.c for Linux and macOS, windows.c. Nothing else in the kernels calls the
 * system. */
#ifndef QV_SYSTEM_H
#define QV_SYSTEM_H

#include <stddef.h>
#include <stdint.h>

#define QV_HUGE_PAGE ((size_t)2 << 20)

/* Zeros in huge pages if the system has them. The same number of bytes must be passed to release
 * them. */
uint8_t *qv_huge_alloc(size_t bytes);
void qv_huge_free(uint8_t *memory, size_t bytes);

/* Take such memory in usual pages, as it is written: a huge page costs as much as hundreds of them. */
void qv_plain_pages(uint8_t *memory, size_t bytes);

/* Let the system take back whole pages of such memory, or of a map of a file. Afterwards, memory has any contents, and
 * a map those of the file. */
void qv_drop_pages(const uint8_t *memory, size_t bytes);

/* Read the pages of a map of a file ahead, without waiting. Advice only: its failure changes nothing. */
void qv_request_pages(const uint8_t *memory, size_t bytes);

/* Bytes of a page of the system. */
size_t qv_page_size(void);

/* Memory at a multiple of 64 bytes, or NULL. Only qv_aligned_free may release it. */
void *qv_aligned_alloc(size_t bytes);
void qv_aligned_free(void *memory);

/* Return malloc's unused memory to the system; with glibc only. */
void qv_trim_heap(void);

/* Read bytes of an open file into the system's cache, without waiting. Advice only: its failure changes nothing. */
void qv_request_file(int fd, uint64_t offset, uint64_t bytes);

/* Read all of `bytes` from an offset of an open file. Returns -1 after an error, or if the file ends before. */
int qv_read_file(int fd, uint8_t *to, uint64_t bytes, uint64_t offset);

/* Open a file once more for reads around the system's cache, whose offsets, bytes and memory are multiples of 4096.
 * Returns -1 where the system cannot. */
int qv_open_direct(int fd);
void qv_close_direct(int fd);

/* Whether most pages of a map of a file are in the system's cache; 1 where this is not known. */
int qv_is_cached(const uint8_t *memory, size_t bytes);

/* What this process has read from disks: `reads` pages, and `faults` pages of maps that it waited for. A system that
 * does not count one of them leaves it at 0. Returns -1 if it counts neither. */
int qv_count_reads(uint64_t *reads, uint64_t *faults);

/* Nanoseconds of a clock that is never set back. */
uint64_t qv_now(void);

#endif
