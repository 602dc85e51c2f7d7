/* What a policy written in C works with. The contract with all its limits is wit/policy.wit of
 * sidetrack; this is the same in C.
 *
 * Whatever a function is given, and whatever a request_… or store_get returns, is there until the
 * call that runs has been answered. Nobody has to free it. What is to stay is copied, into a static
 * variable or into memory of malloc's. */

#ifndef SIDETRACK_H
#define SIDETRACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* UTF-8, not ended by a zero byte. `at` is NULL when there is none, as of a missing header. */
struct text {
    const char *at;
    size_t length;
};

/* Whether a text is there and says this. */
bool text_is(struct text text, const char *expected);
/* A text for a function that takes one. */
struct text text_of(const char *string);

struct bytes {
    const uint8_t *at;
    size_t length;
};

struct label {
    struct text key, value;
};

/* One worker process that may be chosen. */
struct worker {
    uint32_t id;       /* never reused: a worker that is restarted has another */
    struct text name;  /* the slot's, such as w0 */
    uint32_t weight;   /* relative capacity; 1 unless configured */
    bool draining;     /* gives up its sessions one by one: nothing new for it */
    const struct label *labels;
    size_t label_count;
};

/* The value of a label, or no text. */
struct text worker_label(const struct worker *worker, const char *key);

/* All workers that may be chosen now. */
extern const struct worker *workers;
extern size_t worker_count;

/* An answer. */
struct decision {
    enum { WORKER, DEFER, REFUSE } kind;
    uint32_t worker;
    uint16_t status;
    int64_t retry_after; /* seconds; negative for none */
    const char *text;
};

struct decision to_worker(const struct worker *worker);
/* No opinion: the next policy of the chain is asked. */
struct decision defer(void);
/* Nobody gets it: status 400 to 599, seconds for Retry-After or -1, a line for the client. */
struct decision refuse(uint16_t status, int64_t retry_after, const char *text);

/* ---- What a policy defines ---- */

/* Chooses a worker for a connection whose session is new or absent. `loads` has one number for each
 * of `workers`. Never called without workers. */
struct decision balance(const uint32_t *loads);

/* May be left out: takes the options, JSON text, before anything else. NULL, or what is wrong. */
const char *configure(struct text json);
/* May be left out: `workers` has changed. */
void workers_changed(void);

/* The optional interfaces. Each is used only if policy.c says so, with the line above it:
 *
 * EXPORT_SESSIONS;   where a session lives */
struct decision find(struct text sid, const uint32_t *loads);
/* EXPORT_STATE;      what shall survive a trap or a replacement, 64 KiB at most. `restore` returns
 *                    NULL, or why it does not take it. `save` may return static memory. */
struct bytes save(void);
const char *restore(struct bytes state);
/* EXPORT_SCHEMA;     the form of what `save` returns, such as counters/2, and which are read */
const char *schema(void);
bool reads(struct text form);
/* EXPORT_EVENTS;     for policies that keep books */
void session_opened(struct text sid, uint32_t worker);
void session_closed(struct text sid, uint32_t worker);
void worker_failed(uint32_t worker);

/* ---- The request of the running call: only inside `balance` and `find` ---- */

struct text request_method(void);
struct text request_path(void); /* without the query, as sent */
struct text request_query(const char *name);
struct text request_header(const char *name);
struct text request_peer(void); /* the client's IP address */
struct text request_session(void);
uint64_t request_session_hash(void); /* 0 without a session */
bool request_is_upgrade(void);
uint32_t request_attempt(void);

/* ---- What sidetrack lends ---- */

enum level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

/* Whether somebody owns this session, and who. */
bool host_session_owner(struct text sid, uint32_t *worker);
uint64_t host_random_u64(void); /* not for secrets */
uint64_t host_now(void);        /* nanoseconds; only differences mean something */
void host_log(enum level level, const char *text);
/* Says why the running call decides as it does, to whoever traces it. */
void host_explain(const char *text);

/* A small store in sidetrack, which survives a trap and a replacement. */
struct bytes store_get(const char *key); /* `at` is NULL when there is none */
bool store_set(const char *key, struct bytes value);
void store_delete(const char *key);
int64_t store_add(const char *key, int64_t number);

#ifdef __wasm__
#include "interfaces.h"
#else
#define EXPORT_SESSIONS struct export_sessions
#define EXPORT_STATE struct export_state
#define EXPORT_SCHEMA struct export_schema
#define EXPORT_EVENTS struct export_events
#endif

#endif
