/* weighted-least: the worker with the lowest load for its weight, and a gentle start for newcomers.
 *
 * A worker of weight 3 may have three times the load of one of weight 1. One that has just come would
 * get every connection until it has caught up, so its weight grows from a tenth to the whole within
 * `slow_start` seconds: {"slow_start": 30}, which is also the default; 0 turns it off. */

#include "sidetrack/sidetrack.h"

#include <stdlib.h>
#include <string.h>

#define SECOND 1000000000ull
/* Weights are counted in tenths. */
#define TENTHS 10

static uint64_t slow_start = 30 * SECOND;

/* When each worker came, in the order of `workers`. */
struct known {
    uint32_t id;
    bool newcomer;
    uint64_t since;
};

static struct known *known;
static size_t known_count;
static bool first_ones = true;
/* The worker picked last: of equals, the next after it is taken. */
static size_t last;

/* Takes {} or {"slow_start": N}, with spaces anywhere. */
const char *configure(struct text json) {
    static const char pattern[] = "{\"slow_start\":";
    const char *expected = "expected {\"slow_start\": SECONDS}, up to 3600";
    char squeezed[64];
    size_t length = 0;
    for (size_t i = 0; i < json.length; i++) {
        if (strchr(" \t\r\n", json.at[i]))
            continue;
        if (length == sizeof squeezed - 1)
            return expected;
        squeezed[length++] = json.at[i];
    }
    squeezed[length] = 0;
    if (strcmp(squeezed, "{}") == 0)
        return NULL;
    if (length <= sizeof pattern || memcmp(squeezed, pattern, sizeof pattern - 1) != 0)
        return expected;
    uint64_t seconds = 0;
    const char *digit = squeezed + sizeof pattern - 1;
    for (; *digit >= '0' && *digit <= '9' && seconds <= 3600; digit++)
        seconds = seconds * 10 + (uint64_t)(*digit - '0');
    if (strcmp(digit, "}") != 0 || seconds > 3600)
        return expected;
    slow_start = seconds * SECOND;
    return NULL;
}

void workers_changed(void) {
    struct known *now = malloc((worker_count + 1) * sizeof *now);
    if (!now)
        abort();
    for (size_t i = 0; i < worker_count; i++) {
        /* Those that were there when the policy began are no newcomers. */
        now[i] = (struct known){workers[i].id, !first_ones, host_now()};
        for (size_t j = 0; j < known_count; j++)
            if (known[j].id == workers[i].id)
                now[i] = known[j];
    }
    free(known);
    known = now;
    known_count = worker_count;
    first_ones = false;
}

/* In tenths, and never 0 unless it is configured so. */
static uint64_t weight_of(size_t i, uint64_t now) {
    uint64_t whole = (uint64_t)workers[i].weight * TENTHS;
    uint64_t age = now - known[i].since;
    if (!known[i].newcomer || age >= slow_start)
        return whole;
    uint64_t grown = whole * (age / 1000) / (slow_start / 1000);
    return grown > workers[i].weight ? grown : workers[i].weight;
}

struct decision balance(const uint32_t *loads) {
    uint64_t now = host_now();
    bool found = false;
    size_t best = 0;
    uint64_t best_load = 0, best_weight = 0;
    for (size_t step = 1; step <= worker_count; step++) {
        size_t i = (last + step) % worker_count;
        uint64_t weight = weight_of(i, now);
        if (workers[i].draining || weight == 0)
            continue;
        /* As if it had the new one already, or nobody would tell idle workers apart. A fraction is
         * compared by multiplying across. */
        uint64_t load = (uint64_t)loads[i] + 1;
        if (!found || load * best_weight < best_load * weight) {
            found = true;
            best = i;
            best_load = load;
            best_weight = weight;
        }
    }
    if (!found)
        return defer();
    last = best;
    host_explain(best_weight < (uint64_t)workers[best].weight * TENTHS ? "the lowest load for the weight it has grown to"
                                                                       : "the lowest load for its weight");
    return to_worker(&workers[best]);
}
