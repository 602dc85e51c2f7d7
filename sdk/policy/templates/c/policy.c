/* my-policy: who gets a connection whose session is new.
 *
 * Calls never overlap and one instance answers them all, so static variables are exact state.
 * sidetrack/sidetrack.h says what else there is to define and to ask. */

#include "sidetrack/sidetrack.h"

/* The options: JSON text, {} without any. What it returns keeps the policy from being loaded. */
const char *configure(struct text json) { return text_is(json, "{}") ? NULL : "expected no options"; }

/* Edit here. loads[i] says how busy workers[i] is: its open sessions and connections. */
struct decision balance(const uint32_t *loads) {
    const struct worker *best = NULL;
    uint32_t least = 0;
    for (size_t i = 0; i < worker_count; i++) {
        if (workers[i].draining)
            continue; /* it is being emptied: nothing new for it */
        if (!best || loads[i] < least) {
            best = &workers[i];
            least = loads[i];
        }
    }
    if (!best)
        return defer(); /* no opinion: the next policy of the chain is asked */
    host_explain("the lowest load");
    return to_worker(best);
    /* To turn a client away: refuse(503, 5, "try later") */
}
