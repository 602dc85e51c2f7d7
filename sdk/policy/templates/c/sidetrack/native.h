/* For tests on your own machine: a policy without sidetrack around it. */

#ifndef SIDETRACK_NATIVE_H
#define SIDETRACK_NATIVE_H

#include "sidetrack.h"

struct pair {
    const char *name, *value;
};

/* What the policy will be told when it asks. All of it starts empty; `script = (struct script){…}`
 * replaces it. */
struct script {
    const char *method, *path, *peer, *session;
    struct pair query[8], headers[8]; /* up to the first without a name */
    uint64_t session_hash, random, now;
    bool is_upgrade;
    uint32_t attempt;
    struct {
        const char *sid;
        uint32_t worker;
    } owners[8];
};

extern struct script script;

/* What it explained last, or NULL. */
extern const char *explained;

/* Gives the policy these workers: an array that lives on. */
void give_workers(const struct worker *list, size_t count);

/* Ends the program with the place unless the condition holds. */
#define CHECK(condition) \
    ((condition) ? (void)0 : check_failed(__FILE__, __LINE__, #condition))
_Noreturn void check_failed(const char *file, int line, const char *condition);

#endif
