/* Inside of a Trainer, shared by train.c (the loop), train_plans.c (plans by shape) and train_memory.c (what they may
 * take). Nobody else includes this. */
#ifndef REGRAFT_RUNTIME_TRAINER_H
#define REGRAFT_RUNTIME_TRAINER_H

#include "runtime/train.h"

enum { PLAN_CACHE = 16 }; /* two for most runs; sequences have six lengths, in training and in evaluation */

typedef struct PlanEntry {
    bool training;
    size_t only; /* training: as in the batch */
    int input_count;
    Type types[SOURCE_MAX];
    Model *whole; /* over cached features: what `working` was split from, and borrows from */
    Model *working;
    Plan *plan;
    PlanBudget budget;
    uint64_t used; /* when last: the oldest makes room */
} PlanEntry;

struct Trainer {
    Model *document;
    const ParamList *params;
    const FeatureCache *cache;
    TrainOptions options;
    ParamStore *store;
    PlanEntry plans[PLAN_CACHE];
    Workspace space;
    uint64_t clock;
    Position position;
    float *best; /* plain parameters, then statistics, of the best epoch */
    size_t best_count;
    RunSettings settings;
    struct Distribution *distribution; /* NULL: trained in this process alone */
    bool prepared;
    bool measures;      /* training is over: large plans are made one at a time */
    bool planned;       /* training, for one batch at least */
    bool *reached;      /* by parameter: a loss of a training plan depends on it */
    size_t part_rows;   /* a batch is run in parts of so many samples; 0: whole */
    size_t beside;      /* bytes that the run takes besides plans and their parameters */
    size_t last_needed; /* by the plan built last, or that could not be */
    TrainBill bill;
};

/* train_plans.c. The plan for batches of this shape; STATUS_ENVIRONMENT when memory_for_plan is too little. */
Status trainer_plan(Trainer *trainer, const Batch *batch, bool training, PlanEntry **entry, Error *err);
size_t entry_models(const PlanEntry *entry); /* bytes of its models, where folded or transposed weights lie */
/* Inputs by position, then the targets of a training plan. */
void trainer_feed(PlanEntry *entry, const Batch *batch);
/* Whether training on such a batch moves running statistics. */
Status trainer_has_state(Trainer *trainer, const Batch *batch, bool *state, Error *err);
void trainer_forget_plans(Trainer *trainer);

/* train_memory.c */
size_t memory_for_plan(const Trainer *trainer, bool training); /* limit of a plan's bill; 0: none */
/* What the loss of some rows counts for in that of the batch. */
Status batch_share(const Trainer *trainer, const Batch *batch, const Batch *some, double *share, Error *err);

#endif
