/* Several processes that train one model: who I am among them, sums over all of them, news from one to all. The only
 * interface that knows how they talk: comm_mpi.c (where the build found MPI) or comm_none.c stands behind it. A NULL
 * Comm is one process alone.
 *
 * Calls are collective: every rank makes the same ones in the same order. A rank that is lost, or calls comm_abort,
 * ends all. */
#ifndef REGRAFT_RUNTIME_COMM_H
#define REGRAFT_RUNTIME_COMM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "onnx/base/error.h"

typedef struct Comm Comm;

bool comm_in_build(void); /* was MPI found when this was built? */
/* STATUS_UNSUPPORTED without MPI in the build, STATUS_ENVIRONMENT when it cannot start. */
Status comm_open(Comm **comm, Error *err);
void comm_close(Comm *comm);
/* Ends every rank with this exit code; does not return when there are others. */
void comm_abort(Comm *comm, int code);

int comm_rank(const Comm *comm); /* from 0 */
int comm_size(const Comm *comm);
int comm_local_size(const Comm *comm); /* ranks on this machine: they share its processors */

/* Sums over all ranks, in place, without waiting: started in the same order everywhere; `values` stay untouched until
 * comm_sums_finish. comm_sums_progress gives the library time to move data; it is cheap. */
Status comm_sum_start(Comm *comm, float *values, size_t count, Error *err);
void comm_sums_progress(Comm *comm);
Status comm_sums_finish(Comm *comm, Error *err);

/* The rest waits. */
Status comm_sum(Comm *comm, double *values, size_t count, Error *err);
/* Bytes that at most one rank has set (the others hold zeros) are put together on all. */
Status comm_merge(Comm *comm, void *bytes, size_t size, Error *err);
Status comm_broadcast(Comm *comm, void *bytes, size_t size, Error *err); /* from rank 0 */
/* Do all ranks give the same number? */
Status comm_agree(Comm *comm, uint64_t number, bool *same, Error *err);

#endif
