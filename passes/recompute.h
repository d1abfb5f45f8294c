/* Inside of pass_recompute: the tables that recompute.c makes and recompute_choose.c decides on. Nobody else includes
 * this. */
#ifndef REGRAFT_PASSES_RECOMPUTE_H
#define REGRAFT_PASSES_RECOMPUTE_H

#include <stdlib.h>

#include "passes/passes.h"

typedef struct Place { /* bytes that one result and the views on it share */
    size_t bytes;
    int maker;          /* index of the node */
    int forward_last;   /* last node of the forward pass that reads it */
    double cost, chain; /* of its maker; with everything before it that is not saved either. In bytes moved. */
    bool can;           /* be made again */
    bool saved;         /* a gradient reads it */
    bool output;        /* stays to the end */
    bool dropped;       /* the choice: gradients read a copy made for them */
    int first, last, copy_first, copy_last; /* of the schedule: -1 for none */
} Place;

typedef struct Copy {
    const Node *node, *before;
} Copy;

typedef struct Schedule {
    size_t peak; /* bytes that live at one time */
    double cost; /* of all copies */
    size_t copies;
    int time;
} Schedule;

typedef struct Study {
    Graph *graph;
    const RecomputeOptions *options;
    Arena arena;
    Node **nodes; /* by index */
    size_t node_count, place_count;
    bool *forward, *copied; /* by node */
    Place *places;          /* by Value.mark; 0: what takes no part */
    int *wanted;            /* scratch */
    Copy *made;
    const Node **at; /* what runs, by time */
    size_t *change;  /* of live bytes, by time */
} Study;

/* What happens, and the list of copies in `made`, when gradients read copies of every dropped place. */
Schedule recompute_schedule(Study *study);
/* Sets Place.dropped so that the peak fits at the least cost; false: it does not fit, and the smallest peak found is
 * set. */
bool recompute_choose(Study *study, size_t target);

#endif
