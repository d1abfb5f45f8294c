/* A mapped file that shrinks, without SIGBUS; see file.h.
 *
 * Reading a page that its file has lost raises SIGBUS. The handler puts a page of zeros there, notes it, and lets the
 * reader go on: what it computed is worthless, and mapping_was_cut says so before anything is written. A handler
 * belongs to the process: this is the one place with state outside of a structure.
 *
 * It runs on the reader's own stack, where it may overwrite what kernels of oneDNN keep below their stack pointer. An
 * alternate stack would have to be given to every thread, those of OpenMP too, which we do not start. So at worst a run
 * that fails in any case ends in a crash instead of a message; nothing of it is written either way. */
#include "onnx/base/file.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static atomic_bool cut;
static uintptr_t page_mask;

/* Only calls that are safe inside of a handler; mmap is a bare system call on Linux. */
static void on_bus_error(int number, siginfo_t *info, void *context)
{
    (void)context;
    uintptr_t page = (uintptr_t)info->si_addr & page_mask;
    size_t size = (size_t)(~page_mask + 1);
    bool ours = info->si_code == BUS_ADRERR;
    if (ours && mmap((void *)page, size, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != MAP_FAILED) {
        atomic_store(&cut, true);
        return;
    }
    signal(number, SIG_DFL); /* not about a file: as if nobody had asked */
    raise(number);
}

void mapping_guard(void)
{
    page_mask = ~((uintptr_t)sysconf(_SC_PAGESIZE) - 1);
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = on_bus_error;
    action.sa_flags = SA_SIGINFO | SA_NODEFER;
    sigemptyset(&action.sa_mask);
    sigaction(SIGBUS, &action, NULL);
}

bool mapping_was_cut(void)
{
    return atomic_load(&cut);
}
