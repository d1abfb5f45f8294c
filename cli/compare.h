/* What differs between two models: for the verb `diff` and for the plan that surgery prints.
 *
 * Nodes are matched by the name of their first output, then by node name, then by structure: the same operator with the
 * same attributes on the same things. Initializers are matched by name, then by content. */
#ifndef REGRAFT_CLI_COMPARE_H
#define REGRAFT_CLI_COMPARE_H

#include "cli/print.h"
#include "onnx/onnx.h"
#include "onnx/op.h"

typedef struct Change {
    char sign;        /* '-' only in the first, '+' only in the second, '~' differs */
    const char *what; /* "opset", "input", "output", "node", "initializer", "function", "metadata", "doc" */
    const char *name;
    const char *text; /* what it is, or how it differs */
} Change;

typedef struct Same {
    const char *name, *shape; /* initializers that are equal byte for byte */
    const Tensor *tensor;     /* of the first model */
} Same;

typedef struct Comparison {
    Arena arena;
    Change *items;
    size_t count, capacity;
    size_t nodes_same, nodes_changed, nodes_removed, nodes_added, nodes_renamed;
    size_t weights_changed, weights_removed, weights_added, weights_renamed;
    Same *same;
    size_t same_count, same_capacity;
    size_t same_bytes;
    size_t frozen, frozen_same; /* names in the first model's (else the second's) freeze marks; those among `same` */
} Comparison;

typedef struct CompareIgnore {
    bool doc, metadata, names;
} CompareIgnore;

void compare_models(const Model *a, const Model *b, CompareIgnore ignore, Comparison *result);
void comparison_release(Comparison *comparison);
/* `limit`: lines of each kind at most, 0 for all. */
void comparison_print(const Comparison *comparison, size_t limit);
void comparison_json(const Comparison *comparison, Json *json); /* members of the object at hand */

uint64_t tensor_hash(const Tensor *tensor); /* of dtype, dims and bytes */

#endif
