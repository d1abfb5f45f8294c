/* Hash table with insertion order; see map.h. Memory exhaustion aborts, as in the arena. */
#include "onnx/base/map.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static size_t hash(const char *key) /* FNV-1a, then mixed so that low bits depend on all */
{
    uint64_t h = 14695981039346656037u;
    for (; *key != '\0'; key++)
        h = (h ^ (unsigned char)*key) * 1099511628211u;
    h ^= h >> 32;
    return (size_t)h;
}

void map_init(Map *map)
{
    memset(map, 0, sizeof *map);
}

void map_release(Map *map)
{
    free(map->entries);
    free(map->slots);
    map_init(map);
}

/* The slot that holds `key`, or the empty one where it would go. Removed entries keep their slot, so that
 * probing passes over them. */
static size_t find_slot(const Map *map, const char *key)
{
    size_t i = hash(key) & (map->slot_count - 1);
    for (; map->slots[i] != 0; i = (i + 1) & (map->slot_count - 1)) {
        const MapEntry *entry = &map->entries[map->slots[i] - 1];
        if (entry->key != NULL && strcmp(entry->key, key) == 0)
            return i;
    }
    return i;
}

static MapEntry *find(const Map *map, const char *key)
{
    if (map->slot_count == 0)
        return NULL;
    size_t slot = map->slots[find_slot(map, key)];
    return slot == 0 ? NULL : &map->entries[slot - 1];
}

void *map_get(const Map *map, const char *key)
{
    MapEntry *entry = find(map, key);
    return entry == NULL ? NULL : entry->value;
}

bool map_has(const Map *map, const char *key)
{
    return find(map, key) != NULL;
}

static void rebuild(Map *map)
{
    size_t live = 0;
    for (size_t i = 0; i < map->count; i++)
        if (map->entries[i].key != NULL)
            map->entries[live++] = map->entries[i];
    map->count = live;
    size_t wanted = 16;
    while (wanted < live * 4)
        wanted *= 2;
    free(map->slots);
    map->slot_count = wanted;
    map->slots = calloc(wanted, sizeof *map->slots);
    map->capacity = wanted / 2;
    MapEntry *entries = realloc(map->entries, map->capacity * sizeof *entries);
    if (map->slots == NULL || entries == NULL)
        abort();
    map->entries = entries;
    for (size_t i = 0; i < live; i++)
        map->slots[find_slot(map, entries[i].key)] = i + 1;
}

void map_set(Map *map, const char *key, void *value)
{
    MapEntry *entry = find(map, key);
    if (entry != NULL) {
        entry->value = value;
        return;
    }
    if (map->count == map->capacity)
        rebuild(map);
    map->entries[map->count] = (MapEntry){key, value};
    map->slots[find_slot(map, key)] = ++map->count;
    map->live++;
}

void map_remove(Map *map, const char *key)
{
    MapEntry *entry = find(map, key);
    if (entry == NULL)
        return;
    entry->key = NULL;
    entry->value = NULL;
    map->live--;
}
