/* A batch that was baked in: what batch.c (the walk) and batch_gather.c (places that name samples by number) share. */
#ifndef REGRAFT_PASSES_BATCH_H
#define REGRAFT_PASSES_BATCH_H

#include "passes/passes.h"
#include "passes/surgery.h"

enum { BATCH_NONE = -1, BATCH_SEVERAL = -2 };

typedef struct Rebatch {
    Model *document;
    Model *base, *other; /* inferred at `from` and, node by node, at `to` */
    int64_t from, to;
    const Value *input; /* of the document: its first dim is the batch */
    Value *batch;       /* of the document: int64[1], NULL until somebody needs it */
    bool open_dims;     /* dims besides the batch are open: targets must not be computed */
    const Node *lost;   /* of `other`: the last node where samples went in and none came out */
    BatchReport *report;
} Rebatch;

/* The dim that the batch moves; BATCH_NONE, BATCH_SEVERAL. */
int batch_axis(const Value *base, const Value *other);
/* Elements that lie inside of the batch in a joined dim of the base: heads in batch*heads. */
int64_t batch_inner_part(const Rebatch *r, const Value *other, int64_t dim);
Status batch_refuse(const Rebatch *r, const Node *node, const char *why, Error *err);
/* The node of the document to edit; NULL when it is not in the main graph or was another operator there. */
Node *batch_editable(const Rebatch *r, const Node *node);
void batch_count(Rebatch *r, const Node *node);
/* Input `index` of both nodes is the same integer constant: its values. */
bool batch_baked_ints(const Node *base, const Node *other, int index, Arena *arena, int64_t **values, size_t *count);
Value *batch_ints(Graph *graph, const char *stem, int rank, const int64_t *dims, const int64_t *values);
/* Input `index` of a node of the document; a constant that nobody reads any more goes. */
void batch_set_input(Node *node, int index, Value *value);
/* A node of the document before `before`, in its opset; its output. */
Value *batch_node(Rebatch *r, Node *before, const char *op_type, const char *name, Value *const *inputs, int count);
/* int64[rank] of ones with the run's batch at `axis`, as a value of the document. */
Value *batch_shape(Rebatch *r, Node *before, int rank, int axis, const int64_t *dims);

/* batch_gather.c: indices that say "sample 0". */
Status batch_settle_gather(Rebatch *r, const Node *base, Node *other, Error *err);
Status batch_settle_gather_nd(Rebatch *r, const Node *base, Node *other, Error *err);

#endif
