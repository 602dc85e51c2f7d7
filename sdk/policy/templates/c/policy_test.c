/* Runs natively: `make test`. */

#include "sidetrack/native.h"

int main(void) {
    static struct worker some[] = {
        {.id = 1, .name = {"w0", 2}, .weight = 1},
        {.id = 2, .name = {"w1", 2}, .weight = 1},
        {.id = 3, .name = {"w2", 2}, .weight = 1},
    };
    CHECK(configure(text_of("{}")) == NULL);
    CHECK(configure(text_of("{\"wat\": 1}")) != NULL);

    /* The lowest load wins. */
    give_workers(some, 3);
    CHECK(balance((uint32_t[]){5, 2, 9}).worker == 2);
    CHECK(text_is(text_of(explained), "the lowest load"));

    /* Nothing new for a draining worker. */
    some[1].draining = true;
    CHECK(balance((uint32_t[]){5, 2, 9}).worker == 1);
    give_workers(&some[1], 1);
    CHECK(balance((uint32_t[]){0}).kind == DEFER);
    return 0;
}
