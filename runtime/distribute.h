/* One batch on several ranks: each runs its part, and the gradients are summed while the rest of the backward pass
 * still runs. */
#ifndef REGRAFT_RUNTIME_DISTRIBUTE_H
#define REGRAFT_RUNTIME_DISTRIBUTE_H

#include "runtime/comm.h"
#include "runtime/train.h"

typedef struct Distribution Distribution;

/* This rank's part of one batch of all. */
typedef struct Share {
    double weight;  /* of this rank's mean in the mean over all ranks; 0: this rank has nothing that counts */
    size_t samples; /* of all ranks; 0: the pass is over everywhere */
} Share;

/* `comm` NULL: this process has all of it. STATUS_UNSUPPORTED when several losses would need different weights. */
Status share_of(Comm *comm, const LossSpec *losses, size_t loss_count, const Batch *batch, Share *share, Error *err);

/* `comm` and `store` must outlive it. */
Status distribution_new(Comm *comm, ParamStore *store, Distribution **distribution, Error *err);
void distribution_free(Distribution *distribution);
/* plan_run on this rank's part (NULL: it has none), and store->gradient becomes the weighted sum over ranks. With
 * `overlap` that happens bucket by bucket as soon as gradients are final; without, the weighted gradient is added to
 * what earlier parts of an accumulated batch left, and distribution_reduce sums it over ranks. */
Status distribution_run(Distribution *distribution, Plan *plan, uint64_t seed, uint64_t step, double weight,
                        bool overlap, Error *err);
Status distribution_reduce(Distribution *distribution, Error *err);
/* Running statistics become the mean over ranks: each has seen its own part of every batch. */
Status distribution_mean_statistics(Distribution *distribution, Error *err);

/* Scores of every process's part become those of the whole. */
Status tally_merge(Comm *comm, Tally *tally, Error *err);

#endif
