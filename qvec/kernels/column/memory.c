/* Allocation of memory in whole huge pages. */
#include "column/memory.h"

#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#if defined(__GLIBC__)
#include <malloc.h>
#endif

static size_t huge_size(size_t bytes) { return (bytes + QV_HUGE_PAGE - 1) / QV_HUGE_PAGE * QV_HUGE_PAGE; }

/* Uses mmap: malloc would retain freed memory below memory that is in use. */
uint8_t *qv_huge_alloc(size_t bytes) {
    size_t whole = huge_size(bytes), room = whole + QV_HUGE_PAGE;
    uint8_t *start = whole < bytes || room < whole
                         ? MAP_FAILED
                         : mmap(NULL, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (start == MAP_FAILED) return NULL;
    size_t before = (QV_HUGE_PAGE - (uintptr_t)start % QV_HUGE_PAGE) % QV_HUGE_PAGE;
    if (before) munmap(start, before);
    uint8_t *memory = start + before;
    if (before < QV_HUGE_PAGE) munmap(memory + whole, QV_HUGE_PAGE - before);
#ifdef MADV_HUGEPAGE
    madvise(memory, whole, MADV_HUGEPAGE); /* advice only: its failure changes nothing */
#endif
    return memory;
}

void qv_plain_pages(uint8_t *memory, size_t bytes) {
#ifdef MADV_NOHUGEPAGE
    madvise(memory, bytes, MADV_NOHUGEPAGE);
#else
    (void)memory, (void)bytes;
#endif
}

void qv_huge_free(uint8_t *memory, size_t bytes) {
    if (memory) munmap(memory, huge_size(bytes));
}

size_t qv_page_size(void) {
    static size_t size; /* the same for all threads */
    size_t known = __atomic_load_n(&size, __ATOMIC_RELAXED);
    if (known == 0) __atomic_store_n(&size, known = (size_t)sysconf(_SC_PAGESIZE), __ATOMIC_RELAXED);
    return known;
}

void qv_trim_heap(void) {
#if defined(__GLIBC__)
    malloc_trim(0);
#endif
}
