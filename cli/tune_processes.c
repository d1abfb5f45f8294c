/* tune on several processes: who started us, who writes, how many threads each has (docs/distributed.md). Only this
 * file of the tool reads what a launcher leaves in the environment. */
#include <stdlib.h>
#include <unistd.h>

#include "cli/tune.h"

/* How many processes a launcher (Open MPI, MPICH, Slurm's PMI) has started; 1: none has, or a single one. */
static long launched_processes(void)
{
    static const char *const variables[] = {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMIX_SIZE", "MPI_LOCALNRANKS"};
    for (size_t i = 0; i < sizeof variables / sizeof *variables; i++) {
        const char *text = getenv(variables[i]);
        if (text != NULL)
            return strtol(text, NULL, 10);
    }
    return 1;
}

/* The machine's cores are divided among its processes, unless told; a launcher may have bound us to fewer. */
static int threads_of(const Tune *tune)
{
    int share = process_cores(true) / comm_local_size(tune->comm), bound = process_cores(false);
    if (tune->fields->threads > 0)
        return (int)tune->fields->threads;
    return share > bound ? bound : share < 1 ? 1 : share;
}

Status processes_open(Tune *tune, Error *err)
{
    long launched = launched_processes();
    if (launched <= 1 && !tune->fields->mpi) {
        runtime_set_threads((int)tune->fields->threads);
        return STATUS_OK;
    }
    TRY(comm_open(&tune->comm, err));
    tune->threads = threads_of(tune);
    runtime_set_threads(tune->threads);
    if (comm_size(tune->comm) < launched)
        return fail(err, STATUS_ENVIRONMENT,
                    "%ld processes were started, but they do not find each other; this build's MPI is another one than "
                    "the launcher's",
                    launched);
    if (comm_size(tune->comm) > 1 && tune->fields->tasks.count > 0)
        return fail(err, STATUS_USAGE, "--task does not go with several processes");
    return STATUS_OK;
}

void processes_describe(Tune *tune, const char *resuming)
{
    size_t count = 0;
    int ranks = comm_size(tune->comm);
    if (ranks <= 1)
        return;
    progress_note(
        &tune->progress, "processes",
        "%d processes with %d threads each; every batch of %zu is shared; a run that is stopped goes on with: %s",
        ranks, tune->threads, tune->batch, resuming);
    if (batchnorm_form(tune->document, &count) == BATCHNORM_TRAINING && tune->fields->batchnorm == BATCHNORM_LIVE)
        progress_note(&tune->progress, "note",
                      "live BatchNorm normalises with each process's part of a batch; running statistics are averaged "
                      "after every epoch");
}

/* One process that fails ends all; what it has to say is said first. A launcher passes Ctrl-C to all: the one that
 * writes ends the others when it has written. */
void processes_close(Tune *tune, Status status, Error *err)
{
    if (tune->comm == NULL)
        return;
    if (status != STATUS_OK && comm_size(tune->comm) > 1) {
        if (comm_rank(tune->comm) == 0)
            say_error("%s", err->message);
        else if (status == STATUS_INTERRUPTED)
            sleep(5);
        else
            say_error("process %d of %d: %s", comm_rank(tune->comm) + 1, comm_size(tune->comm), err->message);
        comm_abort(tune->comm, (int)status);
    }
    comm_close(tune->comm);
    tune->comm = NULL;
}
