/* Walking the document's main graph: what surgery asks before it cuts. Bodies of If, Loop and Scan count as part of the
 * node that holds them. Marks are Value.mark and Node.mark, scratch of whoever runs now. */
#ifndef REGRAFT_PASSES_WALK_H
#define REGRAFT_PASSES_WALK_H

#include "passes/passes.h"

/* The node of `graph` that holds `node`: itself, or the control flow node around it. */
Node *node_within(const Graph *graph, Node *node);
bool node_has_body(const Node *node);
/* Every value of `graph` that the node reads, those captured by its bodies included. */
void node_each_read(const Node *node, const Graph *graph, void (*visit)(Value *value, void *context), void *context);
/* An input that the caller feeds: initializers listed as inputs (IR version 3) are not. */
bool value_is_fed_input(const Value *value);
/* Value.mark = 1 for every value that depends on a fed input, 0 for the rest. */
void graph_mark_fed(Graph *graph);
/* Clears Node.mark, then sets it on every node that `values` need. */
void graph_mark_needed(Graph *graph, Value *const *values, size_t count);
/* Clears Node.mark, then sets it on every node that depends on `value`. */
void graph_mark_behind(Graph *graph, Value *value);

/* The same from given nodes, themselves included. */
void graph_mark_from(Graph *graph, Node *const *nodes, size_t count);
/* Whether `to` depends on `from`; a value reaches itself. Clobbers Node.mark. */
bool value_reaches(Value *from, const Value *to);

/* A constant operand seen through Identity, Cast, Transpose, Reshape, Constant and DequantizeLinear. */
typedef struct Weight {
    Tensor *tensor; /* as stored */
    int rank;
    int64_t dims[RANK_MAX]; /* as the consumer sees it */
} Weight;

bool weight_resolve(const Value *value, Weight *weight);
/* The operand as integers when it is a small constant: shapes, axes. *values is in `arena`. */
bool operand_ints(const Value *value, Arena *arena, int64_t **values, size_t *count);

/* cut.c: nodes that the outputs need now, in `nodes` (room for all of the graph). */
size_t graph_needed(Graph *graph, Node **nodes);
/* cut.c: removes those of `nodes` that the outputs do not need any more, initializers that only they read, and inputs
 * too unless keep_inputs. */
void graph_drop_unneeded(Graph *graph, Node *const *nodes, size_t count, bool keep_inputs);
/* cut.c: metadata that names or counts classes goes, whoever wrote it (hazard 33). */
void metadata_drop_classes(Model *document);
/* attach.c: a new layer's scores on `features`, its nodes before `before` (NULL: at the end). `output_name` as in
 * HeadSpec. */
Status head_build(Model *document, Value *features, const HeadSpec *spec, Node *before, const char *output_name,
                  Value **scores, Error *err);

#endif
