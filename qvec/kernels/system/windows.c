/* The functions of system.h for Windows 8 and later. */
#ifdef _WIN32
#if !defined(_WIN32_WINNT)
#define _WIN32_WINNT 0x0602
#endif
#include "system/system.h"

#include <io.h>
#include <malloc.h>
#include <windows.h>

#define MAX_READ ((uint64_t)1 << 30) /* ReadFile takes 32 bits */

static size_t huge_size(size_t bytes) { return (bytes + QV_HUGE_PAGE - 1) / QV_HUGE_PAGE * QV_HUGE_PAGE; }

/* Large pages need a privilege that users do not have: usual pages. VirtualAlloc aligns to 64 KiB, so a range is
 * reserved, released, and taken at the next multiple; another thread may take it first. */
uint8_t *qv_huge_alloc(size_t bytes) {
    size_t whole = huge_size(bytes), room = whole + QV_HUGE_PAGE;
    if (whole < bytes || room < whole) return NULL;
    for (int attempt = 0; attempt < 8; attempt++) {
        uint8_t *start = VirtualAlloc(NULL, room, MEM_RESERVE, PAGE_NOACCESS);
        if (start == NULL) return NULL;
        size_t before = (QV_HUGE_PAGE - (uintptr_t)start % QV_HUGE_PAGE) % QV_HUGE_PAGE;
        VirtualFree(start, 0, MEM_RELEASE);
        uint8_t *memory = VirtualAlloc(start + before, whole, MEM_RESERVE | MEM_COMMIT, PAGE_READWRITE);
        if (memory != NULL) return memory;
    }
    return NULL;
}

void qv_huge_free(uint8_t *memory, size_t bytes) {
    (void)bytes; /* the system knows the size */
    if (memory) VirtualFree(memory, 0, MEM_RELEASE);
}

void qv_plain_pages(uint8_t *memory, size_t bytes) { (void)memory, (void)bytes; }

/* Fails on a map of a file, whose pages the system then drops when it needs memory. */
void qv_drop_pages(const uint8_t *memory, size_t bytes) {
    VirtualAlloc((void *)(uintptr_t)memory, bytes, MEM_RESET, PAGE_READWRITE);
}

void qv_request_pages(const uint8_t *memory, size_t bytes) {
    WIN32_MEMORY_RANGE_ENTRY range = {(void *)(uintptr_t)memory, bytes};
    PrefetchVirtualMemory(GetCurrentProcess(), 1, &range, 0);
}

size_t qv_page_size(void) {
    SYSTEM_INFO info;
    GetSystemInfo(&info);
    return info.dwPageSize;
}

void *qv_aligned_alloc(size_t bytes) { return _aligned_malloc(bytes, 64); }

void qv_aligned_free(void *memory) { _aligned_free(memory); }

void qv_trim_heap(void) { HeapCompact(GetProcessHeap(), 0); }

void qv_request_file(int fd, uint64_t offset, uint64_t bytes) { (void)fd, (void)offset, (void)bytes; }

int qv_read_file(int fd, uint8_t *to, uint64_t bytes, uint64_t offset) {
    HANDLE file = (HANDLE)_get_osfhandle(fd);
    while (bytes > 0) {
        OVERLAPPED place = {.Offset = (DWORD)offset, .OffsetHigh = (DWORD)(offset >> 32)};
        DWORD got = 0, part = (DWORD)(bytes < MAX_READ ? bytes : MAX_READ);
        if (!ReadFile(file, to, part, &got, &place) || got == 0) return -1;
        to += got;
        bytes -= got;
        offset += got;
    }
    return 0;
}

/* Windows counts operations of the whole process, also those on other files, and no faults that went to the disk. */
int qv_open_direct(int fd) {
    (void)fd;
    return -1;
}

void qv_close_direct(int fd) { (void)fd; }

int qv_is_cached(const uint8_t *memory, size_t bytes) {
    (void)memory, (void)bytes;
    return 1;
}

int qv_count_reads(uint64_t *reads, uint64_t *faults) {
    IO_COUNTERS counted;
    if (!GetProcessIoCounters(GetCurrentProcess(), &counted)) return -1;
    *reads = counted.ReadOperationCount;
    *faults = 0;
    return 0;
}

uint64_t qv_now(void) {
    static int64_t per_second; /* the same for all threads */
    LARGE_INTEGER read;
    int64_t known = __atomic_load_n(&per_second, __ATOMIC_RELAXED);
    if (known == 0) {
        QueryPerformanceFrequency(&read);
        __atomic_store_n(&per_second, known = read.QuadPart, __ATOMIC_RELAXED);
    }
    QueryPerformanceCounter(&read);
    uint64_t ticks = (uint64_t)read.QuadPart, whole = ticks / (uint64_t)known, rest = ticks % (uint64_t)known;
    return whole * 1000000000u + rest * 1000000000u / (uint64_t)known;
}
#endif
