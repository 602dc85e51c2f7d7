/* As much of C's library as a policy needs, so that clang alone builds one.
 *
 * Memory comes in blocks of powers of two. A freed block waits, in the list of its size, for the next
 * that wants this size: constant time, and nothing grows in a policy that frees what it takes. */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define PAGE 65536u
#define SMALLEST 4 /* 2^4 bytes, header included */
#define SIZES 32

/* Before every block that is in use; keeps what follows aligned to 8 bytes. */
struct header {
    uint64_t size; /* as a power of two */
};

struct free_block {
    struct free_block *next;
};

/* Where the linker's data ends. */
extern unsigned char __heap_base;

static struct free_block *free_blocks[SIZES];
static uintptr_t top;

static void *take(unsigned power) {
    if (free_blocks[power]) {
        struct free_block *block = free_blocks[power];
        free_blocks[power] = block->next;
        return block;
    }
    if (top == 0)
        top = ((uintptr_t)&__heap_base + 15) & ~(uintptr_t)15;
    uint64_t end = (uint64_t)top + ((uint64_t)1 << power);
    uint64_t have = (uint64_t)__builtin_wasm_memory_size(0) * PAGE;
    if (end > have && __builtin_wasm_memory_grow(0, (size_t)((end - have + PAGE - 1) / PAGE)) == (size_t)-1)
        return NULL;
    void *block = (void *)top;
    top = (uintptr_t)end;
    return block;
}

void *malloc(size_t size) {
    if (size > (1u << (SIZES - 1)) - sizeof(struct header))
        return NULL;
    unsigned power = SMALLEST;
    while (((size_t)1 << power) < size + sizeof(struct header))
        power++;
    struct header *header = take(power);
    if (!header)
        return NULL;
    header->size = power;
    return header + 1;
}

void free(void *memory) {
    if (!memory)
        return;
    struct header *header = (struct header *)memory - 1;
    unsigned power = (unsigned)header->size;
    struct free_block *block = (struct free_block *)header;
    block->next = free_blocks[power];
    free_blocks[power] = block;
}

void *calloc(size_t count, size_t size) {
    if (size > 0 && count > SIZE_MAX / size)
        return NULL;
    void *memory = malloc(count * size);
    return memory ? memset(memory, 0, count * size) : NULL;
}

void *realloc(void *memory, size_t size) {
    if (!memory)
        return malloc(size);
    size_t room = ((size_t)1 << ((struct header *)memory - 1)->size) - sizeof(struct header);
    if (size <= room)
        return memory;
    void *larger = malloc(size);
    if (larger) {
        memcpy(larger, memory, room);
        free(memory);
    }
    return larger;
}

void abort(void) { __builtin_trap(); }

/* With -mbulk-memory these are one instruction each. */
void *memcpy(void *restrict to, const void *restrict from, size_t size) { return __builtin_memcpy(to, from, size); }
void *memmove(void *to, const void *from, size_t size) { return __builtin_memmove(to, from, size); }
void *memset(void *to, int byte, size_t size) { return __builtin_memset(to, byte, size); }

int memcmp(const void *left, const void *right, size_t size) {
    const unsigned char *a = left, *b = right;
    for (size_t i = 0; i < size; i++)
        if (a[i] != b[i])
            return a[i] < b[i] ? -1 : 1;
    return 0;
}

size_t strlen(const char *string) {
    size_t length = 0;
    while (string[length])
        length++;
    return length;
}

int strcmp(const char *left, const char *right) {
    while (*left && *left == *right)
        left++, right++;
    return (unsigned char)*left - (unsigned char)*right;
}

char *strchr(const char *string, int character) {
    for (; *string != (char)character; string++)
        if (!*string)
            return NULL;
    return (char *)string;
}
