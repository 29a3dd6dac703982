/* What `load.c` sends, as its script has it; the heads of the frames that it gets; and how late the answers were. */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LINES = 32, SUB = 64, HEAD = 2048, KEPT = 256 };
enum state { HTTP_HEAD, HTTP_BODY, FRAME_HEAD, FRAME_BODY };

struct bytes { char *at; size_t size; };
struct line { char *expected; int is_subscription; struct bytes payload; };

struct conn {
    int fd, number, slot, owed, greeted, is_ready, got_last, is_busy, polls_out;
    struct bytes unsent, extra;          /* of prepared frames; and a pong or a greeting, which is its own */
    enum state state;
    char head[HEAD];                     /* the beginning of what is being read: enough to tell what it is */
    size_t have, left;                   /* bytes of it; bytes of the body still to come */
    int opcode, is_final;
    long turn, waiting;                  /* mode rate: calls that were sent, and that are due */
    double due;
};

static struct line hello[LINES], calls[LINES], fire;
static int hellos, call_count, has_fire;
static char *ring;                       /* the frames of all calls, twice over: any run of them is in one piece */
static size_t offsets[2 * LINES + 1];
static struct bytes fire_frame;

static long histogram[64 * SUB], samples;
static double slowest;

static void fail(const char *why) {
    printf("{\"failed\": \"%s\"}\n", why);
    exit(1);
}

/* latencies: a histogram whose buckets are 1/64 of a power of two of nanoseconds */
static void note_latency(double took) {
    uint64_t ns = took > 0 ? (uint64_t)(took * 1e9) : 0;
    int power = ns < SUB ? 0 : 63 - __builtin_clzll(ns) - 5;
    int bucket = power ? power * SUB / 2 + (int)(ns >> power) : (int)ns;
    histogram[bucket]++;
    samples++;
    if (took > slowest) slowest = took;
}
static double quantile(double q) {
    long seen = 0, wanted = (long)ceil(q * samples);
    for (int bucket = 0; bucket < 64 * SUB; bucket++) {
        seen += histogram[bucket];
        if (seen >= wanted && seen) {
            int power = bucket < SUB ? 0 : bucket / (SUB / 2) - 1;
            double value = power ? ldexp(bucket - power * SUB / 2 + 0.5, power) : bucket;
            return value / 1e9;
        }
    }
    return 0;
}

/* the script */
static struct bytes frame(struct bytes payload, int opcode) {
    static const unsigned char mask[4] = {0x37, 0xfa, 0x21, 0x3d};
    unsigned char *data = malloc(payload.size + 14);
    size_t n = 0;
    data[n++] = 0x80 | opcode;
    int bytes = payload.size < 126 ? 0 : payload.size < 65536 ? 2 : 8;
    data[n++] = 0x80 | (bytes == 0 ? payload.size : bytes == 2 ? 126 : 127);
    for (int i = bytes - 1; i >= 0; i--) data[n++] = (unsigned char)(payload.size >> (8 * i));
    for (int i = 0; i < 4; i++) data[n++] = mask[i];
    for (size_t i = 0; i < payload.size; i++) data[n++] = payload.at[i] ^ mask[i % 4];
    return (struct bytes){(char *)data, n};
}

static struct bytes request(struct bytes text) {
    char *out = malloc(text.size);
    size_t n = 0;
    for (size_t i = 0; i < text.size; i++) {
        char c = text.at[i];
        if (c == '\\' && i + 1 < text.size && (text.at[i + 1] == 'r' || text.at[i + 1] == 'n'))
            c = text.at[++i] == 'r' ? '\r' : '\n';
        out[n++] = c;
    }
    return (struct bytes){out, n};
}

static void read_script(const char *name) {
    FILE *file = fopen(name, "r");
    char *text = NULL;
    size_t room = 0;
    ssize_t size;
    if (!file) fail("no script");
    while ((size = getline(&text, &room, file)) > 1) {
        if (text[size - 1] == '\n') text[--size] = 0;
        char *first = strchr(text, '\t') + 1;
        struct line line = {NULL, text[0] == 's', {first, size - (first - text)}};
        int is_hello = text[0] == 'h' || text[0] == 's';
        if (is_hello) {
            char *second = strchr(first, '\t') + 1;
            line.expected = strndup(first, second - first - 1);
            line.payload = (struct bytes){second, size - (second - text)};
        }
        line.payload.at = memcpy(malloc(line.payload.size + 1), line.payload.at, line.payload.size);
        if (is_hello) hello[hellos++] = line;
        else if (text[0] == 'c') calls[call_count++] = line;
        else fire = line, has_fire = 1;
    }
    fclose(file);
}

static void build_ring(int is_http) {
    struct bytes built[LINES];
    size_t size = 0, at = 0;
    for (int i = 0; i < call_count; i++) {
        built[i] = is_http ? request(calls[i].payload) : frame(calls[i].payload, 1);
        size += built[i].size;
    }
    ring = malloc(2 * size + 1);
    for (int i = 0; i < 2 * call_count; i++) {
        offsets[i] = at;
        memcpy(ring + at, built[i % call_count].at, built[i % call_count].size);
        at += built[i % call_count].size;
    }
    offsets[2 * call_count] = at;
    if (has_fire) fire_frame = frame(fire.payload, 1);
}

/* what is received */
static size_t keep(struct conn *c, const char *data, size_t size, size_t room) {
    size_t taken = c->have < room ? room - c->have : 0;
    if (taken > size) taken = size;
    memcpy(c->head + c->have, data, taken);
    c->have += taken;
    return taken;
}

static size_t read_frame_head(struct conn *c, const char *data, size_t size) {
    size_t taken = keep(c, data, size, 2);
    if (c->have < 2) return taken;
    const unsigned char *head = (unsigned char *)c->head;
    int extended = head[1] == 126 ? 2 : head[1] == 127 ? 8 : 0;
    taken += keep(c, data + taken, size - taken, 2 + extended);
    if (c->have < 2u + extended) return taken;
    c->opcode = head[0] & 15;
    c->is_final = head[0] >> 7;
    c->left = extended ? 0 : head[1];
    for (int i = 0; i < extended; i++) c->left = c->left << 8 | head[2 + i];
    c->have = 0;
    c->state = FRAME_BODY;
    return taken;
}
