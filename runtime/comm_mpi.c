/* comm.h over MPI 3. One thread talks (MPI_THREAD_FUNNELED); errors of the library end the job, which is its default
 * and what a lost rank is to do. Counts of MPI are int, so that large blocks go in pieces. */
#include "runtime/comm.h"

#include <mpi.h>
#include <stdlib.h>

enum { PIECE = 1 << 28, REQUESTS = 512 };

struct Comm {
    int rank, size, local_size;
    MPI_Request requests[REQUESTS];
    int pending;
};

bool comm_in_build(void)
{
    return true;
}

static Status call_failed(const char *what, int code, Error *err)
{
    char text[MPI_MAX_ERROR_STRING + 1] = "";
    int length = 0;
    MPI_Error_string(code, text, &length);
    return fail(err, STATUS_ENVIRONMENT, "MPI: %s: %s", what, text);
}

#define CALL(call)                                                                                                     \
    do {                                                                                                               \
        int code_ = (call);                                                                                            \
        if (code_ != MPI_SUCCESS)                                                                                      \
            return call_failed(#call, code_, err);                                                                     \
    } while (0)

static Status open_ranks(Comm *comm, Error *err)
{
    int provided = 0;
    MPI_Comm local;
    CALL(MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &provided));
    if (provided < MPI_THREAD_FUNNELED)
        return fail(err, STATUS_ENVIRONMENT, "MPI: this library does not support threads beside the one that calls it");
    CALL(MPI_Comm_rank(MPI_COMM_WORLD, &comm->rank));
    CALL(MPI_Comm_size(MPI_COMM_WORLD, &comm->size));
    CALL(MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &local));
    CALL(MPI_Comm_size(local, &comm->local_size));
    CALL(MPI_Comm_free(&local));
    return STATUS_OK;
}

Status comm_open(Comm **out, Error *err)
{
    Comm *comm = calloc(1, sizeof *comm);
    *out = NULL;
    if (comm == NULL)
        return fail(err, STATUS_ENVIRONMENT, "no memory for a group of processes");
    Status status = open_ranks(comm, err);
    if (status != STATUS_OK) {
        free(comm);
        return status;
    }
    *out = comm;
    return STATUS_OK;
}

void comm_close(Comm *comm)
{
    if (comm == NULL)
        return;
    MPI_Finalize();
    free(comm);
}

void comm_abort(Comm *comm, int code)
{
    if (comm != NULL && comm->size > 1)
        MPI_Abort(MPI_COMM_WORLD, code);
}

int comm_rank(const Comm *comm)
{
    return comm == NULL ? 0 : comm->rank;
}

int comm_size(const Comm *comm)
{
    return comm == NULL ? 1 : comm->size;
}

int comm_local_size(const Comm *comm)
{
    return comm == NULL ? 1 : comm->local_size;
}

/* ---- sums that do not wait ------------------------------------------------------------------------------------ */

Status comm_sum_start(Comm *comm, float *values, size_t count, Error *err)
{
    if (comm == NULL)
        return STATUS_OK;
    for (size_t at = 0; at < count; at += PIECE) {
        if (comm->pending == REQUESTS)
            TRY(comm_sums_finish(comm, err));
        int piece = (int)(count - at < PIECE ? count - at : PIECE);
        CALL(MPI_Iallreduce(MPI_IN_PLACE, values + at, piece, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD,
                            &comm->requests[comm->pending]));
        comm->pending++;
    }
    return STATUS_OK;
}

void comm_sums_progress(Comm *comm)
{
    int done = 0;
    if (comm != NULL && comm->pending > 0)
        MPI_Testall(comm->pending, comm->requests, &done, MPI_STATUSES_IGNORE);
    if (done)
        comm->pending = 0;
}

Status comm_sums_finish(Comm *comm, Error *err)
{
    if (comm == NULL || comm->pending == 0)
        return STATUS_OK;
    CALL(MPI_Waitall(comm->pending, comm->requests, MPI_STATUSES_IGNORE));
    comm->pending = 0;
    return STATUS_OK;
}

/* ---- what waits ----------------------------------------------------------------------------------------------- */

Status comm_sum(Comm *comm, double *values, size_t count, Error *err)
{
    if (comm != NULL)
        CALL(MPI_Allreduce(MPI_IN_PLACE, values, (int)count, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD));
    return STATUS_OK;
}

Status comm_merge(Comm *comm, void *bytes, size_t size, Error *err)
{
    for (size_t at = 0; comm != NULL && at < size; at += PIECE) {
        int piece = (int)(size - at < PIECE ? size - at : PIECE);
        CALL(MPI_Allreduce(MPI_IN_PLACE, (char *)bytes + at, piece, MPI_BYTE, MPI_BOR, MPI_COMM_WORLD));
    }
    return STATUS_OK;
}

Status comm_broadcast(Comm *comm, void *bytes, size_t size, Error *err)
{
    for (size_t at = 0; comm != NULL && at < size; at += PIECE) {
        int piece = (int)(size - at < PIECE ? size - at : PIECE);
        CALL(MPI_Bcast((char *)bytes + at, piece, MPI_BYTE, 0, MPI_COMM_WORLD));
    }
    return STATUS_OK;
}

Status comm_agree(Comm *comm, uint64_t number, bool *same, Error *err)
{
    uint64_t range[2] = {number, ~number}; /* the smallest, and the complement of the largest */
    if (comm != NULL)
        CALL(MPI_Allreduce(MPI_IN_PLACE, range, 2, MPI_UINT64_T, MPI_MIN, MPI_COMM_WORLD));
    *same = range[0] == ~range[1];
    return STATUS_OK;
}
