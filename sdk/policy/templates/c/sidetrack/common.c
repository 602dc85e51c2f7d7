/* What is the same in a component and natively: small helpers, and stand-ins for what policy.c leaves
 * out. */

#include <string.h>

#include "sidetrack.h"

bool text_is(struct text text, const char *expected) {
    return text.at && text.length == strlen(expected) && memcmp(text.at, expected, text.length) == 0;
}

struct text text_of(const char *string) { return (struct text){string, strlen(string)}; }

struct text worker_label(const struct worker *worker, const char *key) {
    for (size_t i = 0; i < worker->label_count; i++)
        if (text_is(worker->labels[i].key, key))
            return worker->labels[i].value;
    return (struct text){NULL, 0};
}

struct decision to_worker(const struct worker *worker) {
    return (struct decision){.kind = WORKER, .worker = worker->id};
}

struct decision defer(void) { return (struct decision){.kind = DEFER}; }

struct decision refuse(uint16_t status, int64_t retry_after, const char *text) {
    return (struct decision){.kind = REFUSE, .status = status, .retry_after = retry_after, .text = text};
}

#define MAY_BE_LEFT_OUT __attribute__((weak))

MAY_BE_LEFT_OUT const char *configure(struct text json) {
    (void)json;
    return NULL;
}

MAY_BE_LEFT_OUT void workers_changed(void) {}

/* Those below are never called unless their interface is exported, and then policy.c has them. */

MAY_BE_LEFT_OUT struct decision find(struct text sid, const uint32_t *loads) {
    (void)sid, (void)loads;
    __builtin_trap();
}

MAY_BE_LEFT_OUT struct bytes save(void) { __builtin_trap(); }

MAY_BE_LEFT_OUT const char *restore(struct bytes state) {
    (void)state;
    __builtin_trap();
}

MAY_BE_LEFT_OUT const char *schema(void) { __builtin_trap(); }

MAY_BE_LEFT_OUT bool reads(struct text form) {
    (void)form;
    __builtin_trap();
}

MAY_BE_LEFT_OUT void session_opened(struct text sid, uint32_t worker) {
    (void)sid, (void)worker;
    __builtin_trap();
}

MAY_BE_LEFT_OUT void session_closed(struct text sid, uint32_t worker) {
    (void)sid, (void)worker;
    __builtin_trap();
}

MAY_BE_LEFT_OUT void worker_failed(uint32_t worker) {
    (void)worker;
    __builtin_trap();
}
