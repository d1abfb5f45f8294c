/* How parameters are found (params.c), from what exporters write down of where tensors come from (provenance.c), and
 * which readers of equal numbers mean one parameter (ties.c). Private to these three files. */
#ifndef REGRAFT_PASSES_PARAMS_H
#define REGRAFT_PASSES_PARAMS_H

#include "passes/passes.h"
#include "passes/surgery.h"

/* ---- provenance.c ---------------------------------------------------------------------------------------- */

typedef enum Origin {
    ORIGIN_KEPT,      /* under a name of its own: a parameter or a buffer, nobody says which */
    ORIGIN_PARAMETER, /* the framework trains it */
    ORIGIN_BUFFER,    /* the framework keeps it and does not train it */
    ORIGIN_COPY,      /* elements of one parameter in another order or shape; `source` is its name */
    ORIGIN_COMPUTED   /* the exporter computed it */
} Origin;

typedef struct Provenance {
    Origin origin;
    const char *source; /* the framework's name of the parameter; NULL: unknown */
    bool recorded;      /* the file says so; else it is what the name looks like */
    bool repeated;      /* a copy whose rows are all one part of `source` */
    bool untrained;     /* the file says that nothing the framework trains went into it */
} Provenance;

/* What a document says of the framework's state. */
typedef struct Records {
    const Model *document;
    Arena *arena;
    Map state;        /* name -> its place in the exported program's signature, from 1; empty without one */
    Map kinds;        /* name -> "PARAMETER", "BUFFER", ... */
    Map modules;      /* every module path that some kept name lies in */
    bool torchscript; /* PyTorch's older exporter: names state alone plainly, merges nothing without an Identity */
} Records;

void records_init(Records *records, const Model *document, Arena *arena);
void records_release(Records *records);
Provenance provenance_of(const Records *records, const char *name);
/* Called as exporters call what they compute: "val_12", "embedding_2", "onnx::Add_7". */
bool name_is_generated(const Records *records, const char *name);
/* The node's module as people write it: "layer4.1.conv2"; of name_scopes metadata, else of the folders of the node's
 * name, where the numbers that tell the calls of one module apart are dropped. *recorded: from metadata. "" when
 * unknown or outermost. */
const char *module_of(const Records *records, const Node *node, bool *recorded);

/* ---- ties.c ---------------------------------------------------------------------------------------------- */

typedef enum UseKind {
    USE_NOT,        /* shapes, statistics, limits: never a parameter */
    USE_WEIGHT,     /* of a linear map or a recurrent cell */
    USE_NORM,       /* scale or bias of a normalisation */
    USE_SLOPE,      /* PRelu */
    USE_TABLE,      /* read by Gather */
    USE_ARITHMETIC, /* operand of Add, Mul, Sub, Div */
    USE_EXPONENT,   /* of Pow */
    USE_DATA,       /* enters a data operator: Concat, Where, Max ... */
    USE_PASSES      /* the same numbers in another shape: look at the readers */
} UseKind;

/* One place of the working copy where a tensor's numbers arrive. */
typedef struct Reader {
    Use direct; /* what reads the initializer */
    Use final;  /* where that ends, behind reshapes and arithmetic with constants */
    UseKind kind;
    bool derived;      /* arithmetic lies between */
    const char *alias; /* name under which it is read: an Identity's output, else the tensor's */
    const char *module;
    bool recorded; /* module is from metadata */
    bool counts;   /* as a parameter */
    int parameter; /* number of its ParamInfo, -1: none */
} Reader;

/* ---- copy_layout.c: is `copy` made from `owner`, and how? */
bool is_moved_copy(const Tensor *owner, const Tensor *copy,
                   CopyLayout *layout); /* other dims, axes exchanged, or as is */
int64_t repeated_row(const Tensor *owner,
                     const Tensor *copy); /* where the row lies that all its rows are; -1: nowhere */
bool is_length(const Tensor *owner, const Tensor *copy, CopyLayout *layout); /* over some axes, or its square */
bool is_square(Arena *scratch, const Tensor *owner, const Tensor *copy, CopyLayout *layout);

/* ---- ties.c */
/* Do both readers of `tensor` (called `name`) mean one parameter? */
bool readers_share(const Records *records, const Tensor *tensor, const char *name, const Reader *a, const Reader *b);
bool tensor_is_uniform(const Tensor *tensor);
/* Sets tied_to where two tensors of the list are copies of one parameter. `readers[i]` is the first reader of parameter
 * i. */
void find_ties(const Records *records, ParamList *list, const Reader *readers);
/* Lengths of a parameter's rows that an exporter folded (TorchScript does for a class matrix that is normalised) and
 * that training must move with it: listed as tied. */
void find_computed_copies(const Records *records, Arena *arena, ParamList *list);

#endif
