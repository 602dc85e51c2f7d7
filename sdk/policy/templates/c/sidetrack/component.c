/* Between the functions that wit-bindgen made of the contract (bindings.c) and those of sidetrack.h.
 * Its business is who owns which memory. */

#include "sidetrack.h"

#include <stdlib.h>
#include <string.h>

#include "bindings.h"

EXPORT_POLICY;

/* bindings.c names it so that the linker keeps an object file with the types, which are above instead. */
void __component_type_object_force_link_bindings(void) {}

/* ---- Memory that is lent for a call ---- */

/* Everything the host hands over is allocated by `cabi_realloc`. What a policy asks for during a call
 * is remembered here and freed at its end. */
struct lent {
    struct lent *next;
    void *memory;
};

static struct lent *lent;

static void lend(void *memory, size_t length) {
    /* Nothing is allocated for what has no length. */
    if (length == 0)
        return;
    struct lent *entry = malloc(sizeof *entry);
    if (!entry)
        abort();
    *entry = (struct lent){lent, memory};
    lent = entry;
}

static void end_call(void) {
    while (lent) {
        struct lent *entry = lent;
        lent = entry->next;
        free(entry->memory);
        free(entry);
    }
}

static struct text lend_text(bindings_string_t text) {
    lend(text.ptr, text.len);
    return (struct text){(const char *)text.ptr, text.len};
}

static struct text lend_optional(bool there, bindings_string_t text) {
    return there ? lend_text(text) : (struct text){NULL, 0};
}

static struct bytes lend_bytes(bindings_list_u8_t bytes) {
    lend(bytes.ptr, bytes.len);
    return (struct bytes){bytes.ptr, bytes.len};
}

/* For the host to read: it copies, and frees nothing. */
static bindings_string_t view(const char *string) {
    return (bindings_string_t){(uint8_t *)string, strlen(string)};
}

static bool refused(const char *error, bindings_string_t *said) {
    if (error)
        bindings_string_dup(said, error);
    end_call();
    return !error;
}

/* ---- Workers ---- */

const struct worker *workers;
size_t worker_count;

/* A label is laid out alike on both sides. */
_Static_assert(sizeof(struct label) == sizeof(bindings_tuple2_string_string_t), "labels differ");
_Static_assert(offsetof(struct label, value) == offsetof(bindings_tuple2_string_string_t, f1), "labels differ");

void exports_sidetrack_policy_policy_set_workers(exports_sidetrack_policy_policy_list_worker_t *list) {
    static exports_sidetrack_policy_policy_list_worker_t owned;
    exports_sidetrack_policy_policy_list_worker_free(&owned);
    owned = *list;
    free((void *)workers);
    struct worker *copy = malloc(owned.len * sizeof *copy);
    if (owned.len > 0 && !copy)
        abort();
    for (size_t i = 0; i < owned.len; i++) {
        sidetrack_policy_types_worker_t *worker = &owned.ptr[i];
        copy[i] = (struct worker){
            .id = worker->id,
            .name = {(const char *)worker->name.ptr, worker->name.len},
            .weight = worker->weight,
            .draining = worker->draining,
            .labels = (const struct label *)worker->labels.ptr,
            .label_count = worker->labels.len,
        };
    }
    workers = copy;
    worker_count = owned.len;
    workers_changed();
    end_call();
}

/* ---- The other calls ---- */

bool exports_sidetrack_policy_policy_configure(bindings_string_t *json, bindings_string_t *said) {
    return refused(configure(lend_text(*json)), said);
}

static void answer(struct decision decision, sidetrack_policy_types_decision_t *answer) {
    switch (decision.kind) {
    case WORKER:
        answer->tag = SIDETRACK_POLICY_TYPES_DECISION_WORKER;
        answer->val.worker = decision.worker;
        break;
    case DEFER:
        answer->tag = SIDETRACK_POLICY_TYPES_DECISION_DEFER;
        break;
    case REFUSE:
        answer->tag = SIDETRACK_POLICY_TYPES_DECISION_REFUSE;
        answer->val.refuse.status = decision.status;
        answer->val.refuse.retry_after.is_some = decision.retry_after >= 0;
        answer->val.refuse.retry_after.val = (uint32_t)decision.retry_after;
        bindings_string_dup(&answer->val.refuse.text, decision.text ? decision.text : "");
        break;
    }
    end_call();
}

static const uint32_t *lend_loads(bindings_list_u32_t *loads) {
    lend(loads->ptr, loads->len);
    return loads->ptr;
}

void exports_sidetrack_policy_policy_balance(bindings_list_u32_t *loads, sidetrack_policy_types_decision_t *ret) {
    answer(balance(lend_loads(loads)), ret);
}

void exports_sidetrack_policy_sessions_find(bindings_string_t *sid, bindings_list_u32_t *loads,
                                            sidetrack_policy_types_decision_t *ret) {
    answer(find(lend_text(*sid), lend_loads(loads)), ret);
}

void exports_sidetrack_policy_state_save(bindings_list_u8_t *ret) {
    struct bytes state = save();
    ret->len = state.length;
    ret->ptr = malloc(state.length);
    if (state.length > 0) {
        if (!ret->ptr)
            abort();
        memcpy(ret->ptr, state.at, state.length);
    }
    end_call();
}

bool exports_sidetrack_policy_state_restore(bindings_list_u8_t *state, bindings_string_t *said) {
    return refused(restore(lend_bytes(*state)), said);
}

void exports_sidetrack_policy_schema_current(bindings_string_t *ret) {
    bindings_string_dup(ret, schema());
    end_call();
}

bool exports_sidetrack_policy_schema_reads(bindings_string_t *form) {
    bool answer = reads(lend_text(*form));
    end_call();
    return answer;
}

void exports_sidetrack_policy_events_session_opened(bindings_string_t *sid, uint32_t worker) {
    session_opened(lend_text(*sid), worker);
    end_call();
}

void exports_sidetrack_policy_events_session_closed(bindings_string_t *sid, uint32_t worker) {
    session_closed(lend_text(*sid), worker);
    end_call();
}

void exports_sidetrack_policy_events_worker_failed(uint32_t worker) {
    worker_failed(worker);
    end_call();
}

/* ---- What a policy asks ---- */

struct text request_method(void) {
    bindings_string_t text;
    sidetrack_policy_request_method(&text);
    return lend_text(text);
}

struct text request_path(void) {
    bindings_string_t text;
    sidetrack_policy_request_path(&text);
    return lend_text(text);
}

struct text request_query(const char *name) {
    bindings_string_t key = view(name), text;
    return lend_optional(sidetrack_policy_request_query(&key, &text), text);
}

struct text request_header(const char *name) {
    bindings_string_t key = view(name), text;
    return lend_optional(sidetrack_policy_request_header(&key, &text), text);
}

struct text request_peer(void) {
    bindings_string_t text;
    return lend_optional(sidetrack_policy_request_peer(&text), text);
}

struct text request_session(void) {
    bindings_string_t text;
    return lend_optional(sidetrack_policy_request_session(&text), text);
}

uint64_t request_session_hash(void) { return sidetrack_policy_request_session_hash(); }
bool request_is_upgrade(void) { return sidetrack_policy_request_is_upgrade(); }
uint32_t request_attempt(void) { return sidetrack_policy_request_attempt(); }

bool host_session_owner(struct text sid, uint32_t *worker) {
    bindings_string_t key = {(uint8_t *)sid.at, sid.length};
    return sidetrack_policy_host_session_owner(&key, worker);
}

uint64_t host_random_u64(void) { return sidetrack_policy_host_random_u64(); }
uint64_t host_now(void) { return sidetrack_policy_host_now(); }

void host_log(enum level level, const char *text) {
    bindings_string_t line = view(text);
    sidetrack_policy_host_log((sidetrack_policy_host_level_t)level, &line);
}

void host_explain(const char *text) {
    bindings_string_t line = view(text);
    sidetrack_policy_host_explain(&line);
}

struct bytes store_get(const char *key) {
    bindings_string_t name = view(key);
    bindings_list_u8_t value;
    if (!sidetrack_policy_store_get(&name, &value))
        return (struct bytes){NULL, 0};
    return lend_bytes(value);
}

bool store_set(const char *key, struct bytes value) {
    bindings_string_t name = view(key);
    bindings_list_u8_t bytes = {(uint8_t *)value.at, value.length};
    return sidetrack_policy_store_set(&name, &bytes);
}

void store_delete(const char *key) {
    bindings_string_t name = view(key);
    sidetrack_policy_store_delete(&name);
}

int64_t store_add(const char *key, int64_t number) {
    bindings_string_t name = view(key);
    return sidetrack_policy_store_add(&name, number);
}
