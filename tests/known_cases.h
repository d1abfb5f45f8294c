/* Cases of ONNX's backend tests that do not pass, from tests/conformance/known.txt: `PATTERN: reason`, or
 * `PATTERN (VERSION): reason` for what only the test data of that version of Debian's libonnx-testdata has. Used by
 * suite_conformance.c and suite_rows.c. */
#ifndef REGRAFT_TESTS_KNOWN_CASES_H
#define REGRAFT_TESTS_KNOWN_CASES_H

#include <string.h>

#include "onnx/base/arena.h"
#include "onnx/base/file.h"
#include "onnx/base/str.h"
#include "tests/test.h"

typedef struct KnownCases {
    Arena arena;
    const char **patterns, **versions; /* version: NULL for any */
    size_t count, capacity, version_capacity;
} KnownCases;

/* One line, without its end; comments and empty lines say nothing. */
static inline void known_cases_line(KnownCases *known, char *line)
{
    char *colon = strchr(line, ':'), *version = strstr(line, " (");
    if (line[0] == '#' || colon == NULL)
        return;
    *colon = '\0';
    if (version != NULL && version < colon) {
        *version = '\0';
        version += 2;
        version[strcspn(version, ")")] = '\0';
    } else {
        version = NULL;
    }
    known->patterns = arena_grow(&known->arena, (void *)(uintptr_t)known->patterns, known->count, &known->capacity,
                                 sizeof known->patterns[0]);
    known->versions = arena_grow(&known->arena, (void *)(uintptr_t)known->versions, known->count,
                                 &known->version_capacity, sizeof known->versions[0]);
    known->patterns[known->count] = line;
    known->versions[known->count++] = version;
}

static inline void known_cases_read(KnownCases *known)
{
    Mapping file;
    Error err = {0};
    memset(known, 0, sizeof *known);
    arena_init(&known->arena);
    assert_ok(mapping_open(&file, TESTS_FOLDER "/conformance/known.txt", &err), &err);
    char *text = arena_strndup(&known->arena, (const char *)file.data, file.size);
    mapping_release(&file);
    for (char *end; *text != '\0'; text = end + 1) {
        end = strchr(text, '\n');
        assert_non_null(end);
        *end = '\0';
        known_cases_line(known, text);
    }
}

/* `version`: of the data in which the case lies, "" for others than Debian's. */
static inline bool known_cases_have(const KnownCases *known, const char *name, const char *version)
{
    for (size_t i = 0; i < known->count; i++)
        if (text_glob(known->patterns[i], name) &&
            (known->versions[i] == NULL || strcmp(known->versions[i], version) == 0))
            return true;
    return false;
}

#endif
