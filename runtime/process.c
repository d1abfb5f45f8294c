/* The process as the system sees it: how much of it is in memory, which is what --memory promises is counted from, and
 * the cores it may run on. */
#include <sched.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

#include "runtime/runtime.h"

size_t process_resident(void)
{
    unsigned long pages = 0, resident = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (file != NULL && fscanf(file, "%lu %lu", &pages, &resident) != 2)
        resident = 0;
    if (file != NULL)
        fclose(file);
    return resident * (size_t)sysconf(_SC_PAGESIZE);
}

size_t process_peak(void)
{
    struct rusage usage;
    return getrusage(RUSAGE_SELF, &usage) == 0 ? (size_t)usage.ru_maxrss << 10 : 0;
}

/* The first processor of the core that `processor` belongs to; where the system does not say, itself. */
static int core_of(int processor)
{
    char path[96];
    int first;
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", processor);
    FILE *file = fopen(path, "r");
    if (file == NULL)
        return processor;
    if (fscanf(file, "%d", &first) != 1)
        first = processor;
    fclose(file);
    return first;
}

int process_cores(bool all)
{
    cpu_set_t set;
    bool seen[CPU_SETSIZE] = {false};
    int count = 0;
    CPU_ZERO(&set);
    if (!all && sched_getaffinity(0, sizeof set, &set) != 0)
        return 0;
    long processors = sysconf(_SC_NPROCESSORS_CONF);
    for (int i = 0; i < CPU_SETSIZE && i < processors; i++) {
        int core = all || CPU_ISSET((size_t)i, &set) ? core_of(i) : -1;
        if (core >= 0 && core < CPU_SETSIZE && !seen[core])
            count++;
        if (core >= 0 && core < CPU_SETSIZE)
            seen[core] = true;
    }
    return count;
}
