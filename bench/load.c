/* The load: many connections to one server of 127.0.0.1, on one thread, every frame built before it starts.
 *
 *   load PORT PATH MODE SCRIPT CONNECTIONS WARM SECONDS PID RATE
 *
 * MODE  call: each connection keeps all `call` lines of the script in flight;  http: the same with whole HTTP requests;
 *       rate: RATE calls a second in all, at fixed times, one in flight on a connection; a latency counts from the time
 *             at which the call was due, so a call that had to wait for the one before it is not forgotten;
 *       fan:  the connections are subscribers; one more connection sends `fire`, and again as soon as all have got a
 *             frame that holds "last";
 *       hold: the connections are kept until stdin ends.
 * SCRIPT  lines of `hello<TAB>expected<TAB>payload` (each connection sends it, and waits for a frame that holds what is
 *         expected), `subscribe<TAB>expected<TAB>payload` (likewise, except the one that fires), `call<TAB>payload` and
 *         `fire<TAB>payload`. `@@@@@@` becomes the number of the connection. In mode `http`, \r and \n are written
 *         with a backslash.
 *
 * SECONDS are of the server's CPU time, so that a window is as long on a machine that has other work; those of mode rate
 * and of WARM are of the clock. Nor does a window of mode fan begin before all have FIRST events: Linux acknowledges the
 * first 16 segments of a connection one by one, which the server pays for.
 *
 * It prints `ready` when all are connected and have said their hello, and at the end one line of JSON: the messages and
 * seconds of the window, the CPU seconds of the server's process and its own, how many messages were errors, and the
 * quantiles of the latencies. A SIGTERM has it print that line at once.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "load.h"

enum { BUFFER = 1 << 18, CONNECTING = 100, PATIENCE = 20, FIRST = 20 };
enum phase { OPEN, WARM, WINDOW };

static struct conn *conns, *control;
static int total, ready_count, last_count, opened, epoll, timer, port;
static const char *path;
static int is_http, is_rate, is_fan, is_hold;
static enum phase phase;
static long messages, errors, fires, scheduled;
static double rate, warm, seconds, window_start, phase_start, heard_at, fired_at, load_cpu_start, server_cpu_start;
static clockid_t server_clock;
static volatile sig_atomic_t is_told_to_end;

static double on(clockid_t id) {
    struct timespec t;
    if (clock_gettime(id, &t)) return 0;
    return t.tv_sec + t.tv_nsec / 1e9;
}
static double now(void) { return on(CLOCK_MONOTONIC); }

/* sending */
static void poll_for(struct conn *c, int out) {
    struct epoll_event event = {out ? EPOLLIN | EPOLLOUT : EPOLLIN, {.ptr = c}};
    if (c->polls_out != out) epoll_ctl(epoll, EPOLL_CTL_MOD, c->fd, &event);
    c->polls_out = out;
}

static int push(struct conn *c, struct bytes *what) {
    while (what->size) {
        ssize_t sent = send(c->fd, what->at, what->size, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && errno == EAGAIN) return 0;
        if (sent < 0) fail("the server closed a connection");
        what->at += sent;
        what->size -= sent;
    }
    return 1;
}

static void flush(struct conn *c) {
    for (;;) {
        if (!push(c, &c->unsent) || !push(c, &c->extra)) {
            poll_for(c, 1);
            return;
        }
        if (!c->owed) break;
        int n = c->owed < call_count ? c->owed : call_count;
        c->unsent = (struct bytes){ring + offsets[c->slot], offsets[c->slot + n] - offsets[c->slot]};
        c->slot = (c->slot + n) % call_count;
        c->owed -= n;
    }
    poll_for(c, 0);
}

static void send_own(struct conn *c, struct bytes built) {
    c->extra = built;                    /* small, and rare: the one before it has left long ago */
    flush(c);
}

static void greet(struct conn *c) {
    while (c == control && c->greeted < hellos && hello[c->greeted].is_subscription) c->greeted++;
    if (c->greeted < hellos) {
        struct bytes payload = hello[c->greeted].payload;
        payload.at = memcpy(malloc(payload.size + 1), payload.at, payload.size);
        char number[16], *place = memmem(payload.at, payload.size, "@@@@@@", 6);
        snprintf(number, sizeof number, "%06d", c->number);
        if (place) memcpy(place, number, 6);
        send_own(c, frame(payload, 1));
        free(payload.at);
        return;
    }
    c->is_ready = 1;
    ready_count++;
}

/* the course of the measurement */
static void report(void) {
    double took = now() - window_start;
    printf("{\"messages\": %ld, \"seconds\": %.6f, \"server_cpu\": %.6f, \"load_cpu\": %.6f, \"errors\": %ld, "
           "\"fires\": %ld, \"samples\": %ld, \"p50\": %.7f, \"p99\": %.7f, \"p999\": %.7f, \"max\": %.7f}\n",
           messages, took, on(server_clock) - server_cpu_start, on(CLOCK_PROCESS_CPUTIME_ID) - load_cpu_start, errors,
           fires, samples, quantile(0.5), quantile(0.99), quantile(0.999), slowest);
    exit(0);
}

static void look_at_clock(double time) {
    if (phase == WARM && time - phase_start >= warm && (!is_fan || messages >= (long)FIRST * total)) {
        phase = WINDOW;
        messages = errors = fires = samples = 0;
        slowest = 0;
        memset(histogram, 0, sizeof histogram);
        window_start = now();
        server_cpu_start = on(server_clock);
        load_cpu_start = on(CLOCK_PROCESS_CPUTIME_ID);
    } else if (phase == WINDOW) {
        double passed = is_rate ? time - window_start : on(server_clock) - server_cpu_start;
        if (passed >= seconds) report();
    }
}

static void fire_now(void) {
    last_count = 0;
    for (int i = 0; i < total; i++) conns[i].got_last = 0;
    fired_at = now();
    struct bytes copy = fire_frame;
    if (!push(control, &copy)) fail("the control connection is full");
}

static void all_got_last(void) {
    double time = now();
    note_latency(time - fired_at);
    fires++;
    look_at_clock(time);                 /* a window begins and ends between two fan-outs */
    fire_now();
}

static double due_at(long number) { return phase_start + number / rate; }

static void call_next(struct conn *c) {
    if (c->is_busy || !c->waiting) return;
    c->waiting--;
    c->is_busy = 1;
    c->due = due_at(c->turn++ * total + c->number);
    c->owed = 1;
    flush(c);
}

static void call_what_is_due(void) {
    for (double time = now(); due_at(scheduled) <= time; scheduled++) {
        struct conn *c = &conns[scheduled % total];
        c->waiting++;
        call_next(c);
    }
    double next = due_at(scheduled);
    struct itimerspec at = {.it_value = {(time_t)next, (long)((next - floor(next)) * 1e9)}};
    timerfd_settime(timer, TFD_TIMER_ABSTIME, &at, NULL);
}

static void begin(void) {
    phase = WARM;
    phase_start = now();
    printf("ready\n");
    fflush(stdout);
    if (is_hold) {
        struct epoll_event event = {EPOLLIN, {.ptr = &epoll}};
        epoll_ctl(epoll, EPOLL_CTL_ADD, 0, &event);
    } else if (is_fan) {
        fire_now();
    } else if (is_rate) {
        struct epoll_event event = {EPOLLIN, {.ptr = &timer}};
        timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
        epoll_ctl(epoll, EPOLL_CTL_ADD, timer, &event);
        call_what_is_due();
    } else {
        for (int i = 0; i < total; i++) conns[i].owed = call_count, flush(&conns[i]);
    }
}

/* receiving */
static void got_message(struct conn *c) {
    messages++;
    if (memmem(c->head, c->have < 64 ? c->have : 64, "\"error\"", 7)) errors++;
    if (is_rate) {
        note_latency(now() - c->due);
        c->is_busy = 0;
        call_next(c);
    } else if (c == control) {
        messages--;
    } else if (is_fan) {
        if (c->got_last || !memmem(c->head, c->have, "\"last\"", 6)) return;
        c->got_last = 1;
        if (++last_count == total) all_got_last();
    } else {
        c->owed++;
    }
}

static void got_frame(struct conn *c) {
    if (c->opcode == 8) fail("the server said goodbye");
    if (c->opcode == 9) {
        send_own(c, frame((struct bytes){c->head, c->have}, 10));
    } else if (c->opcode == 10 || !c->is_final) {
        return;
    } else if (c->have == 1 && c->head[0] == '2') { /* Engine.IO has pings of its own */
        send_own(c, frame((struct bytes){"3", 1}, 1));
    } else if (c->is_ready) {
        got_message(c);
    } else if (memmem(c->head, c->have, hello[c->greeted].expected, strlen(hello[c->greeted].expected))) {
        c->greeted++;
        greet(c);
    }
}

static size_t read_http_head(struct conn *c, const char *data, size_t size) {
    size_t before = c->have, taken = keep(c, data, size, HEAD - 1);
    c->head[c->have] = 0;
    char *end = strstr(c->head, "\r\n\r\n");
    if (!end && !taken) fail("a long head of HTTP");
    if (!end) return taken;
    size_t used = end + 4 - c->head - before;
    *end = 0;
    c->have = 0;
    if (!is_http) {
        if (strncmp(c->head + 9, "101", 3)) fail("no upgrade");
        c->state = FRAME_HEAD;
        greet(c);
        return used;
    }
    char *length = strcasestr(c->head, "\r\ncontent-length:");
    if (!length) fail("an answer without Content-Length");
    c->left = strtoul(length + 17, NULL, 10);
    c->state = HTTP_BODY;
    if (strncmp(c->head + 9, "200", 3)) errors++;
    return used;
}

static void consume(struct conn *c, const char *data, size_t size) {
    for (;;) {
        if ((c->state == HTTP_BODY || c->state == FRAME_BODY) && !c->left) { /* before it is asked for more */
            int was_frame = c->state == FRAME_BODY;
            if (was_frame) got_frame(c);
            else got_message(c);
            c->state = was_frame ? FRAME_HEAD : HTTP_HEAD;
            c->have = 0;
        }
        if (!size) return;
        size_t taken = c->left < size ? c->left : size;
        if (c->state == HTTP_HEAD) taken = read_http_head(c, data, size);
        else if (c->state == FRAME_HEAD) taken = read_frame_head(c, data, size);
        else keep(c, data, taken, KEPT), c->left -= taken;
        data += taken;
        size -= taken;
    }
}

static void receive(struct conn *c) {
    static char buffer[BUFFER];
    ssize_t size = recv(c->fd, buffer, BUFFER, MSG_DONTWAIT);
    if (size < 0 && errno == EAGAIN) return;
    if (size <= 0) fail("the server closed a connection");
    heard_at = now();
    consume(c, buffer, size);
}

/* opening */
static void open_one(void) {
    struct conn *c = &conns[opened];
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct linger at_once = {1, 0};
    int on = 1;
    c->number = opened++;
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&to, sizeof to)) fail(strerror(errno)); /* too many open files */
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once); /* its port is free again at once */
    struct epoll_event event = {EPOLLIN, {.ptr = c}};
    epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &event);
    char text[1000];
    int size = snprintf(text, sizeof text,
        "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", path, port);
    if (is_http) c->is_ready = 1, ready_count++;
    else if (send(c->fd, text, size, MSG_NOSIGNAL) != size) fail("no handshake");
}

static void serve(struct epoll_event *event) {
    struct conn *c = event->data.ptr;
    if (event->data.ptr == &epoll) {
        char nothing[64];
        if (read(0, nothing, sizeof nothing) <= 0) exit(0);
    } else if (event->data.ptr == &timer) {
        call_what_is_due();
    } else {
        if (event->events & ~EPOLLOUT) receive(c);
        if (phase != OPEN || event->events & EPOLLOUT) flush(c);
    }
}

static void end(int number) { is_told_to_end = number; }

int main(int argc, char **argv) {
    if (argc != 10) fail("load PORT PATH MODE SCRIPT CONNECTIONS WARM SECONDS PID RATE");
    const char *mode = argv[3];
    port = atoi(argv[1]), path = argv[2], total = atoi(argv[5]);
    warm = atof(argv[6]), seconds = atof(argv[7]), rate = atof(argv[9]);
    is_http = !strcmp(mode, "http"), is_rate = !strcmp(mode, "rate");
    is_fan = !strcmp(mode, "fan"), is_hold = !strcmp(mode, "hold");
    if (clock_getcpuclockid(atoi(argv[8]), &server_clock)) fail("no such server");
    signal(SIGTERM, end);
    read_script(argv[4]);
    build_ring(is_http);
    conns = calloc(total + is_fan, sizeof *conns);
    if (is_fan) control = &conns[total];
    epoll = epoll_create1(0);
    heard_at = now();
    for (;;) {
        struct epoll_event events[256];
        while (opened < total + is_fan && opened - ready_count < CONNECTING) open_one();
        if (phase == OPEN && ready_count == total + is_fan) begin();
        int count = epoll_wait(epoll, events, 256, 100);
        for (int i = 0; i < count; i++) serve(&events[i]);
        if (is_told_to_end) report();
        if ((!is_hold || phase == OPEN) && now() - heard_at > PATIENCE) fail("silence");
        if (!is_fan && !is_hold) look_at_clock(now());
    }
}
