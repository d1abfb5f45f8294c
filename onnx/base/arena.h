/* Arena: many small objects with one owner and one end.
 *
 * A Model owns an Arena and everything reachable from the Model lives in it: names, nodes, attributes, small
 * tensors. Passes unlink, nobody frees. Large blocks that come and go (activations, parameters) do not
 * belong here; they are allocated by whoever plans them, with block_alloc.
 *
 * Allocation never returns NULL: when the system has no memory left for a chunk of metadata, the arena's
 * handler is called, which must not return (the default prints nothing and aborts; a host program may
 * longjmp). Blocks whose size a file or a user controls go through block_alloc, which does fail softly. */
#ifndef REGRAFT_BASE_ARENA_H
#define REGRAFT_BASE_ARENA_H

#include <stddef.h>
#include <stdint.h>

#include "onnx/base/error.h"

typedef struct ArenaChunk ArenaChunk;

typedef struct Arena {
    ArenaChunk *head;
    void (*exhausted)(void *context); /* must not return; NULL: abort */
    void *context;
    size_t used; /* bytes handed out */
} Arena;

void arena_init(Arena *arena);
void arena_release(Arena *arena);

/* Zeroed, aligned for any type. `arena_array(a, T, n)` checks the product. */
void *arena_alloc(Arena *arena, size_t size);
void *arena_calloc(Arena *arena, size_t count, size_t size);
void *arena_copy(Arena *arena, const void *bytes, size_t size);
char *arena_strdup(Arena *arena, const char *text);
char *arena_strndup(Arena *arena, const char *text, size_t length);
char *arena_printf(Arena *arena, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define arena_new(arena, type) ((type *)arena_alloc((arena), sizeof(type)))
#define arena_array(arena, type, count) ((type *)arena_calloc((arena), (count), sizeof(type)))

/* Grows an arena-owned array by doubling: returns `items` with room for `count + 1` elements. `capacity` is
 * updated. The old array stays behind in the arena. */
void *arena_grow(Arena *arena, void *items, size_t count, size_t *capacity, size_t size);

/* A 64-byte aligned, zeroed block for numbers; size 0 gives a valid pointer. A large one takes memory as it is
 * touched. Fails with
 * STATUS_ENVIRONMENT naming `what` and the size. Released with block_free (NULL is fine). */
Status block_alloc(void **block, size_t size, const char *what, Error *err);
void block_free(void *block);

/* Products and sums of sizes that a file controls; false when they overflow. */
int size_mul(size_t a, size_t b, size_t *product);
int size_add(size_t a, size_t b, size_t *sum);

#endif
