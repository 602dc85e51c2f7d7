/* Answers a policy's questions from `script`. Its store holds 64 values of up to 256 bytes. */

#include "native.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

struct script script;
const char *explained;
const struct worker *workers;
size_t worker_count;

void give_workers(const struct worker *list, size_t count) {
    workers = list;
    worker_count = count;
    workers_changed();
}

void check_failed(const char *file, int line, const char *condition) {
    fprintf(stderr, "%s:%d: not so: %s\n", file, line, condition);
    exit(1);
}

static struct text optional(const char *string) { return string ? text_of(string) : (struct text){NULL, 0}; }

static struct text first(const struct pair *pairs, const char *name, int (*compare)(const char *, const char *)) {
    for (size_t i = 0; i < 8 && pairs[i].name; i++)
        if (compare(pairs[i].name, name) == 0)
            return optional(pairs[i].value);
    return (struct text){NULL, 0};
}

struct text request_method(void) { return text_of(script.method ? script.method : "GET"); }
struct text request_path(void) { return text_of(script.path ? script.path : "/"); }
struct text request_query(const char *name) { return first(script.query, name, strcmp); }
struct text request_header(const char *name) { return first(script.headers, name, strcasecmp); }
struct text request_peer(void) { return optional(script.peer); }
struct text request_session(void) { return optional(script.session); }
uint64_t request_session_hash(void) { return script.session_hash; }
bool request_is_upgrade(void) { return script.is_upgrade; }
uint32_t request_attempt(void) { return script.attempt; }

bool host_session_owner(struct text sid, uint32_t *worker) {
    for (size_t i = 0; i < 8 && script.owners[i].sid; i++)
        if (text_is(sid, script.owners[i].sid)) {
            *worker = script.owners[i].worker;
            return true;
        }
    return false;
}

uint64_t host_random_u64(void) { return script.random; }
uint64_t host_now(void) { return script.now; }

void host_log(enum level level, const char *text) {
    static const char *const names[] = {"error", "warn", "info", "debug"};
    fprintf(stderr, "%s: %s\n", names[level], text);
}

void host_explain(const char *text) {
    static char last[257];
    snprintf(last, sizeof last, "%s", text);
    explained = last;
}

static struct {
    char key[257];
    uint8_t value[256];
    size_t length;
    bool used;
} stored[64];

static int at(const char *key) {
    for (int i = 0; i < 64; i++)
        if (stored[i].used && strcmp(stored[i].key, key) == 0)
            return i;
    return -1;
}

struct bytes store_get(const char *key) {
    int i = at(key);
    return i < 0 ? (struct bytes){NULL, 0} : (struct bytes){stored[i].value, stored[i].length};
}

bool store_set(const char *key, struct bytes value) {
    int i = at(key);
    for (int free = 0; i < 0 && free < 64; free++)
        if (!stored[free].used)
            i = free;
    if (i < 0 || value.length > sizeof stored[i].value || strlen(key) >= sizeof stored[i].key)
        return false;
    strcpy(stored[i].key, key);
    memcpy(stored[i].value, value.at, value.length);
    stored[i].length = value.length;
    stored[i].used = true;
    return true;
}

void store_delete(const char *key) {
    int i = at(key);
    if (i >= 0)
        stored[i].used = false;
}

int64_t store_add(const char *key, int64_t number) {
    struct bytes old = store_get(key);
    uint64_t sum = (uint64_t)number;
    uint8_t bytes[8];
    for (int i = 0; i < 8 && old.length == 8; i++)
        sum += (uint64_t)old.at[i] << 8 * i;
    for (int i = 0; i < 8; i++)
        bytes[i] = (uint8_t)(sum >> 8 * i);
    return store_set(key, (struct bytes){bytes, 8}) ? (int64_t)sum : 0;
}
