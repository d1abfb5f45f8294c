/* Map: string -> pointer, open addressing, keeps the order of insertion for iteration.
 * Keys are borrowed: they must outlive the map (names live in a Model's arena). */
#ifndef REGRAFT_BASE_MAP_H
#define REGRAFT_BASE_MAP_H

#include <stdbool.h>
#include <stddef.h>

typedef struct MapEntry {
    const char *key; /* NULL: removed */
    void *value;
} MapEntry;

typedef struct Map {
    MapEntry *entries; /* in order of insertion; removed ones have key NULL */
    size_t count;      /* entries used, removed ones included */
    size_t capacity, live;
    size_t *slots; /* index into entries + 1; 0 empty */
    size_t slot_count;
} Map;

void map_init(Map *map);
void map_release(Map *map);
void *map_get(const Map *map, const char *key); /* NULL when absent */
bool map_has(const Map *map, const char *key);
void map_set(Map *map, const char *key, void *value); /* adds or replaces */
void map_remove(Map *map, const char *key);

#endif
