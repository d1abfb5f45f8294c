/* Chunked bump allocation and aligned number blocks; see arena.h. */
#include "onnx/base/arena.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { CHUNK_SIZE = 64 * 1024, ALIGNMENT = 16, BLOCK_ALIGNMENT = 64, BLOCK_MAPPED = 1 << 20, BLOCK_HUGE = 8 << 20 };

struct ArenaChunk {
    ArenaChunk *next;
    size_t size, used; /* of the bytes that follow this header */
    _Alignas(ALIGNMENT) char bytes[];
};

void arena_init(Arena *arena)
{
    memset(arena, 0, sizeof *arena);
}

void arena_release(Arena *arena)
{
    for (ArenaChunk *chunk = arena->head; chunk != NULL;) {
        ArenaChunk *next = chunk->next;
        free(chunk);
        chunk = next;
    }
    arena_init(arena);
}

static void arena_exhausted(Arena *arena)
{
    if (arena->exhausted != NULL)
        arena->exhausted(arena->context);
    abort();
}

/* What is large begins where kernels want it: they would copy it otherwise. */
static ArenaChunk *arena_add_chunk(Arena *arena, size_t size)
{
    size_t room = size > CHUNK_SIZE / 4 ? size : CHUNK_SIZE;
    ArenaChunk *chunk = NULL;
    if (room <= SIZE_MAX - BLOCK_ALIGNMENT - sizeof *chunk)
        chunk = calloc(1, sizeof *chunk + room + BLOCK_ALIGNMENT);
    if (chunk == NULL)
        arena_exhausted(arena);
    chunk->used = (BLOCK_ALIGNMENT - (uintptr_t)chunk->bytes % BLOCK_ALIGNMENT) % BLOCK_ALIGNMENT;
    chunk->size = room + chunk->used;
    if (room == size && arena->head != NULL) { /* a chunk of its own: keep filling the current one */
        chunk->next = arena->head->next;
        arena->head->next = chunk;
    } else {
        chunk->next = arena->head;
        arena->head = chunk;
    }
    return chunk;
}

void *arena_alloc(Arena *arena, size_t size)
{
    if (size > SIZE_MAX - ALIGNMENT)
        arena_exhausted(arena);
    size_t rounded = (size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    ArenaChunk *chunk = arena->head;
    if (chunk == NULL || chunk->size - chunk->used < rounded)
        chunk = arena_add_chunk(arena, rounded);
    void *result = chunk->bytes + chunk->used;
    chunk->used += rounded;
    arena->used += rounded;
    return result;
}

void *arena_calloc(Arena *arena, size_t count, size_t size)
{
    size_t bytes = 0;
    if (!size_mul(count, size, &bytes))
        arena_exhausted(arena);
    return arena_alloc(arena, bytes);
}

void *arena_copy(Arena *arena, const void *bytes, size_t size)
{
    void *copy = arena_alloc(arena, size);
    if (size > 0)
        memcpy(copy, bytes, size);
    return copy;
}

char *arena_strndup(Arena *arena, const char *text, size_t length)
{
    char *copy = arena_alloc(arena, length + 1);
    if (length > 0)
        memcpy(copy, text, length);
    copy[length] = '\0';
    return copy;
}

char *arena_strdup(Arena *arena, const char *text)
{
    return arena_strndup(arena, text, strlen(text));
}

char *arena_printf(Arena *arena, const char *format, ...)
{
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    char *text = arena_alloc(arena, n < 0 ? 1 : (size_t)n + 1);
    if (n >= 0)
        vsnprintf(text, (size_t)n + 1, format, again);
    va_end(again);
    return text;
}

void *arena_grow(Arena *arena, void *items, size_t count, size_t *capacity, size_t size)
{
    if (count < *capacity)
        return items;
    size_t more = *capacity < 4 ? 4 : *capacity * 2;
    void *grown = arena_calloc(arena, more, size);
    if (count > 0)
        memcpy(grown, items, count * size);
    *capacity = more;
    return grown;
}

/* What lies before a block. Large ones are mappings of their own: fresh pages are zero already and are given to the
 * process only when they are touched, huge where the system has them, and go back to it when freed. */
typedef struct BlockHead {
    size_t mapped; /* bytes; 0: from the heap */
} BlockHead;

static void *map_block(size_t size)
{
    void *base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED)
        return NULL;
    if (size >= BLOCK_HUGE)
        (void)madvise(base, size, MADV_HUGEPAGE);
    return base;
}

Status block_alloc(void **block, size_t size, const char *what, Error *err)
{
    *block = NULL;
    if (size > SIZE_MAX - 3 * BLOCK_ALIGNMENT)
        return fail(err, STATUS_ENVIRONMENT, "%s: %zu bytes is more than any memory", what, size);
    size_t all = (size + 2 * BLOCK_ALIGNMENT - 1) / BLOCK_ALIGNMENT * BLOCK_ALIGNMENT;
    bool mapped = size >= BLOCK_MAPPED;
    char *base = mapped ? map_block(all) : aligned_alloc(BLOCK_ALIGNMENT, all);
    if (base == NULL)
        return fail(err, STATUS_ENVIRONMENT, "%s: no memory for %zu bytes", what, size);
    if (!mapped)
        memset(base, 0, all);
    ((BlockHead *)base)->mapped = mapped ? all : 0;
    *block = base + BLOCK_ALIGNMENT;
    return STATUS_OK;
}

void block_free(void *block)
{
    if (block == NULL)
        return;
    char *base = (char *)block - BLOCK_ALIGNMENT;
    size_t mapped = ((BlockHead *)base)->mapped;
    if (mapped > 0)
        munmap(base, mapped);
    else
        free(base);
}

int size_mul(size_t a, size_t b, size_t *product)
{
    return !__builtin_mul_overflow(a, b, product);
}

int size_add(size_t a, size_t b, size_t *sum)
{
    return !__builtin_add_overflow(a, b, sum);
}
