#include "sidetrack/sidetrack.h"

struct decision balance(const uint32_t *loads) {
    const struct worker *best = NULL;
    uint32_t least = UINT32_MAX;
    for (size_t i = 0; i < worker_count; i++) {
        if (workers[i].draining || (best && loads[i] >= least))
            continue;
        best = &workers[i];
        least = loads[i];
    }
    return best ? to_worker(best) : defer();
}
