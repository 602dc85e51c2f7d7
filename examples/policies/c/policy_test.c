#include "sidetrack/native.h"

#include <string.h>

#define SECOND 1000000000ull

static struct worker some[] = {
    {.id = 1, .name = {"w0", 2}, .weight = 1},
    {.id = 2, .name = {"w1", 2}, .weight = 3},
    {.id = 3, .name = {"w2", 2}, .weight = 2},
};

/* Opens sessions and returns how many each of the workers has then. */
static void open_sessions(uint32_t *loads, size_t count) {
    while (count-- > 0) {
        struct decision decision = balance(loads);
        CHECK(decision.kind == WORKER);
        for (size_t i = 0; i < worker_count; i++)
            loads[i] += workers[i].id == decision.worker;
    }
}

int main(void) {
    CHECK(configure(text_of("{ \"slow_start\" : 30 }")) == NULL);
    CHECK(configure(text_of("{}")) == NULL);
    const char *const wrong[] = {"[]", "{\"slow_start\": }", "{\"slow_start\": -1}", "{\"slow_start\": 3601}",
                                 "{\"slow_start\": 1, \"x\": 2}", "{\"wat\": 1}"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        CHECK(configure(text_of(wrong[i])) != NULL);

    /* Two workers, weights 1 and 3. */
    script.now = 1000 * SECOND;
    give_workers(some, 2);
    uint32_t loads[3] = {0};
    open_sessions(loads, 400);
    CHECK(loads[0] == 100 && loads[1] == 300);

    /* A third comes, and is not overrun: at first it counts a tenth. */
    give_workers(some, 3);
    uint32_t at_first[3] = {100, 300, 0};
    open_sessions(at_first, 100);
    CHECK(at_first[2] > 10 && at_first[2] < 30);
    /* In the end it has its share. */
    script.now += 31 * SECOND;
    uint32_t later[3] = {100, 300, 0};
    open_sessions(later, 200);
    CHECK(later[0] == 100 && later[1] == 300 && later[2] == 200);
    CHECK(strcmp(explained, "the lowest load for its weight") == 0);

    /* Draining, or of weight 0: nothing. */
    some[1].draining = true;
    some[2].weight = 0;
    CHECK(balance((uint32_t[]){9, 0, 0}).worker == 1);
    some[0].draining = true;
    CHECK(balance((uint32_t[]){9, 0, 0}).kind == DEFER);
    return 0;
}
