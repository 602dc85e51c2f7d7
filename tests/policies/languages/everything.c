/* Uses all that sidetrack.h offers; the path of a request says what to try. */

#include "sidetrack/sidetrack.h"

#include <stdlib.h>
#include <string.h>

EXPORT_SESSIONS;
EXPORT_STATE;
EXPORT_SCHEMA;
EXPORT_EVENTS;

static char said[512];

static void say(const char *text, size_t length) {
    size_t end = strlen(said);
    if (length > sizeof said - 2 - end)
        length = sizeof said - 2 - end;
    memcpy(said + end, text, length);
    strcpy(said + end + length, "|");
}

static void say_text(struct text text) { text.at ? say(text.at, text.length) : say("none", 4); }

static void say_number(uint64_t number) {
    char digits[20];
    size_t at = sizeof digits;
    do
        digits[--at] = (char)('0' + number % 10);
    while (number /= 10);
    say(digits + at, sizeof digits - at);
}

static char *options;
static uint32_t saved;

const char *configure(struct text json) {
    if (json.length == 0 || json.at[0] != '{')
        return "no options";
    /* What is lent for a call is copied. */
    free(options);
    options = calloc(json.length + 1, 1);
    memcpy(options, json.at, json.length);
    return strcmp(options, "{\"wrong\":1}") == 0 ? "wrong is wrong" : NULL;
}

static struct decision answer(void) { return refuse(503, 7, said); }

struct decision balance(const uint32_t *loads) {
    struct text path = request_path();
    said[0] = 0;
    if (text_is(path, "/request")) {
        say_text(request_method());
        say_text(request_query("a"));
        say_text(request_query("b"));
        say_text(request_header("x-one"));
        say_text(request_header("x-two"));
        say_text(request_peer());
        say_text(request_session());
        say_number(request_session_hash());
        say_number(request_is_upgrade());
        say_number(request_attempt());
        return answer();
    }
    if (text_is(path, "/host")) {
        uint32_t owner = 0;
        say_number(host_session_owner(text_of("known"), &owner));
        say_number(owner);
        say_number(host_session_owner(text_of("unknown"), &owner));
        say_number(host_random_u64() != host_random_u64());
        uint64_t begin = host_now();
        say_number(host_now() >= begin && begin > 0);
        host_log(LOG_INFO, "hello");
        host_explain("because");
        return answer();
    }
    if (text_is(path, "/store")) {
        say_number((uint64_t)store_add("count", 5));
        say_number((uint64_t)store_add("count", -2));
        say_number(store_set("key", (struct bytes){(const uint8_t *)"value", 5}));
        struct bytes value = store_get("key");
        say((const char *)value.at, value.length);
        store_delete("key");
        say_number(store_get("key").at == NULL);
        return answer();
    }
    if (text_is(path, "/workers")) {
        for (size_t i = 0; i < worker_count; i++) {
            say_number(workers[i].id);
            say_text(workers[i].name);
            say_number(workers[i].weight);
            say_number(workers[i].draining);
            say_text(worker_label(&workers[i], "zone"));
            say_number(loads[i]);
        }
        say(options, strlen(options));
        return answer();
    }
    if (text_is(path, "/bare"))
        return refuse(429, -1, NULL);
    if (text_is(path, "/count"))
        return say_number(++saved), answer();
    if (text_is(path, "/memory")) {
        for (size_t size = 1; size < 1u << 16; size = size * 3 + 1)
            for (int i = 0; i < 8; i++) {
                char *memory = malloc(size);
                memset(memory, 1, size);
                memory = realloc(memory, size + 100);
                free(memory);
            }
        return to_worker(&workers[0]);
    }
    if (text_is(path, "/wild"))
        return to_worker((const struct worker *)0x7fffffff);
    return defer();
}

struct decision find(struct text sid, const uint32_t *loads) {
    (void)loads;
    return text_is(sid, "mine") ? to_worker(&workers[1]) : defer();
}

struct bytes save(void) { return (struct bytes){(const uint8_t *)&saved, sizeof saved}; }

const char *restore(struct bytes state) {
    if (state.length != sizeof saved)
        return "not four bytes";
    memcpy(&saved, state.at, sizeof saved);
    return NULL;
}

const char *schema(void) { return "count/1"; }
bool reads(struct text form) { return text_is(form, "count/1"); }

void session_opened(struct text sid, uint32_t worker) {
    if (text_is(sid, "s"))
        saved += worker;
}

void session_closed(struct text sid, uint32_t worker) {
    if (text_is(sid, "s"))
        saved += 10 * worker;
}

void worker_failed(uint32_t worker) { saved += 100 * worker; }
