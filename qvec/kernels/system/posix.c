/* The functions of system.h for Linux and macOS. */
#ifndef _WIN32
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* O_DIRECT, mincore */
#endif
#include "system/system.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#if defined(__GLIBC__)
#include <malloc.h>
#endif

#define SECTORS_PER_READ 8 /* ru_inblock counts 512 bytes */

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

void qv_huge_free(uint8_t *memory, size_t bytes) {
    if (memory) munmap(memory, huge_size(bytes));
}

void qv_plain_pages(uint8_t *memory, size_t bytes) {
#ifdef MADV_NOHUGEPAGE
    madvise(memory, bytes, MADV_NOHUGEPAGE);
#else
    (void)memory, (void)bytes;
#endif
}

void qv_drop_pages(const uint8_t *memory, size_t bytes) { madvise((void *)(uintptr_t)memory, bytes, MADV_DONTNEED); }

void qv_request_pages(const uint8_t *memory, size_t bytes) {
    size_t page = qv_page_size();
    uintptr_t start = (uintptr_t)memory / page * page, end = (uintptr_t)memory + bytes;
    madvise((void *)start, end - start, MADV_WILLNEED);
}

size_t qv_page_size(void) {
    static size_t size; /* the same for all threads */
    size_t known = __atomic_load_n(&size, __ATOMIC_RELAXED);
    if (known == 0) __atomic_store_n(&size, known = (size_t)sysconf(_SC_PAGESIZE), __ATOMIC_RELAXED);
    return known;
}

void *qv_aligned_alloc(size_t bytes) {
    void *memory = NULL;
    return posix_memalign(&memory, 64, bytes) ? NULL : memory;
}

void qv_aligned_free(void *memory) { free(memory); }

void qv_trim_heap(void) {
#if defined(__GLIBC__)
    malloc_trim(0);
#endif
}

void qv_request_file(int fd, uint64_t offset, uint64_t bytes) {
#if defined(POSIX_FADV_WILLNEED)
    posix_fadvise(fd, (off_t)offset, (off_t)bytes, POSIX_FADV_WILLNEED);
#else
    (void)fd, (void)offset, (void)bytes;
#endif
}

int qv_read_file(int fd, uint8_t *to, uint64_t bytes, uint64_t offset) {
    while (bytes > 0) {
        ssize_t got = pread(fd, to, bytes, (off_t)offset);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return -1;
        to += got;
        bytes -= (uint64_t)got;
        offset += (uint64_t)got;
    }
    return 0;
}

int qv_open_direct(int fd) {
#if defined(__linux__) && defined(O_DIRECT)
    char path[40];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    return open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
#else
    (void)fd;
    return -1;
#endif
}

void qv_close_direct(int fd) {
    if (fd >= 0) close(fd);
}

int qv_is_cached(const uint8_t *memory, size_t bytes) {
#if defined(__linux__)
    unsigned char pages[QV_HUGE_PAGE >> 12];
    size_t n = bytes / qv_page_size(), cached = 0;
    if (n > sizeof pages || mincore((void *)(uintptr_t)memory, bytes, pages)) return 1;
    for (size_t i = 0; i < n; i++) cached += pages[i] & 1;
    return 2 * cached > n;
#else
    (void)memory, (void)bytes;
    return 1;
#endif
}

int qv_count_reads(uint64_t *reads, uint64_t *faults) {
    struct rusage used;
    if (getrusage(RUSAGE_SELF, &used)) return -1;
    *reads = (uint64_t)used.ru_inblock / SECTORS_PER_READ;
    *faults = (uint64_t)used.ru_majflt;
    return 0;
}

uint64_t qv_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}
#endif
