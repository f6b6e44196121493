/* The client of the benchmark: makes calls, reads what comes back, and counts every answer that is not the right one.
 *
 *     load calls   PORT PATH CONNECTIONS SECONDS     small calls, one after the other on each connection
 *     load streams PORT PATH STREAMS RATE SECONDS    streams at the same time, of RATE events a second each: prints "open"
 *                                                    when all have begun; what events wait for is counted from then on
 *     load flood   PORT PATH STREAMS EVENTS          streams at the same time, of EVENTS each, as fast as they come
 *     load first   PORT PATH TIMES                   one short stream after the other: what the first event waits for
 *     load report  PORT PATH BYTES TIMES EVENT       large results, one after the other; EVENT 1: as one event
 *     load idle    PORT PATH SESSIONS                sessions with an open stream each: prints "ready", holds them until
 *                                                    its standard input ends, then says whether they are all there
 *
 * Header fields from the environment: BENCH_FIELDS, complete lines.  BENCH_LOOSE=1 takes answers for right which say the
 * same in other bytes.  Prints one JSON object; times in microseconds. */

#include "traffic.h"

#define GIVE_UP 60e9 /* nanoseconds without any answer */

typedef struct {
    uint32_t *values; /* tenths of microseconds */
    size_t count, capacity;
} Samples;

typedef struct {
    int fd;
    Buffer raw, out, text, lines, session; /* text: the body of a call; 1 byte once a stream's result was seen */
    size_t sent;
    Body body;
    int status;
    bool is_open;
    int64_t id, began, first_byte;
    size_t received;  /* of the body */
    int64_t progress; /* of the last event */
    int step;         /* of a session: initialize, stream */
} Connection;

static enum { CALLS, STREAMS, FLOOD, FIRST, REPORT, IDLE } what;
static const char *path, *fields;
static bool is_loose;
static int port, poller, open_connections;
static int64_t opened, started, stop, last_heard, first_event, last_event;
static int64_t done, events, wrong_status, wrong_body, broken;
static double rate, seconds;
static size_t report_size, bytes;
static int report_as_event, times, begun, asked;
static char example[600];
static Samples waits, firsts, rates;

static void add(Samples *samples, double tenths) {
    if (samples->count == samples->capacity) {
        samples->capacity = samples->capacity ? samples->capacity * 2 : 65536;
        samples->values = realloc(samples->values, samples->capacity * sizeof *samples->values);
        if (samples->values == NULL) fail("realloc");
    }
    samples->values[samples->count++] = tenths < 0 ? 0 : tenths > 4e9 ? 4000000000u : (uint32_t)tenths;
}

static int order(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static double part(const Samples *samples, double fraction) {
    if (samples->count == 0) return 0;
    return samples->values[(size_t)(fraction * (double)(samples->count - 1) + 0.5)] / 10.0;
}

/* Keeps the first wrong answer, as far as it can stand in a JSON string. */
static void show(const char *kind, const char *text, size_t size) {
    if (example[0] != 0) return;
    int n = snprintf(example, sizeof example, "%s: ", kind);
    for (size_t i = 0; i < size && i < 400; i++) {
        char c = text[i];
        if (c == '"' || c == '\\') c = '\'';
        example[n++] = c < ' ' || c > '~' ? ' ' : c;
    }
    example[n] = 0;
}

/* -- requests ----------------------------------------------------------------------------------------------------- */

static void request(Connection *c, const char *method, const char *body) {
    size_t size = strlen(body);
    c->out.size = c->sent = 0;
    reserve(&c->out, 2048 + size);
    c->out.size = (size_t)snprintf(c->out.data, c->out.capacity,
                                   "%s %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nAccept: application/json, text/event-stream\r\n"
                                   "Content-Type: application/json\r\n%s%.*sContent-Length: %zu\r\n\r\n%s",
                                   method, path, port, fields, (int)c->session.size, c->session.data, size, body);
    c->body.state = HEAD;
    c->text.size = 0;
    c->received = 0;
    c->progress = 0;
    c->first_byte = 0;
    c->began = now_ns();
}

static void flush(Connection *c) {
    ssize_t n = send(c->fd, c->out.data + c->sent, c->out.size - c->sent, 0);
    /* A request is smaller than any socket's buffer: what is not taken at once will never be. */
    if (n >= 0) c->sent += (size_t)n;
}

static void next_request(Connection *c) {
    char body[600];
    c->id++;
    if (what == IDLE) {
        if (c->step++ == 0)
            request(c, "POST",
                    "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"initialize\",\"params\":{\"protocolVersion\":\"2025-11-25\",\"capabilities\":{},"
                    "\"clientInfo\":{\"name\":\"bench\",\"version\":\"1\"}}}");
        else
            request(c, "GET", "");
    } else {
        int n = snprintf(body, sizeof body, "{\"jsonrpc\":\"2.0\",\"id\":%lld,\"method\":\"tools/call\",\"params\":{", (long long)c->id);
        char *rest = body + n;
        size_t room = sizeof body - (size_t)n;
        if (what == CALLS)
            snprintf(rest, room, "\"name\":\"get_weather\",\"arguments\":{\"city\":\"Oslo\"}}}");
        else if (what == REPORT)
            snprintf(rest, room, "\"name\":\"get_report\",\"arguments\":{\"bytes\":%zu,\"events\":%d}}}", report_size, report_as_event);
        else if (what == FIRST)
            snprintf(rest, room, "\"name\":\"get_events\",\"arguments\":{\"count\":3,\"rate\":500},\"_meta\":{\"progressToken\":%lld}}}",
                     (long long)c->id);
        else if (what == FLOOD)
            snprintf(rest, room, "\"name\":\"get_events\",\"arguments\":{\"count\":%d},\"_meta\":{\"progressToken\":%lld}}}", times,
                     (long long)c->id);
        else
            snprintf(rest, room,
                     "\"name\":\"get_events\",\"arguments\":{\"rate\":%g,\"seconds\":%g},\"_meta\":{\"progressToken\":%lld}}}", rate,
                     seconds, (long long)c->id);
        request(c, "POST", body);
    }
    flush(c);
}

/* -- answers ------------------------------------------------------------------------------------------------------ */

static bool is_right_weather(const Connection *c) {
    static const char RESULT[] =
        "\"result\":{\"content\":[{\"type\":\"text\",\"text\":\"It is 21 degrees and sunny in Oslo today.\"}],\"isError\":false}}";
    char expected[300];
    size_t length;
    if (is_loose) {
        const char *id = member(c->text.data, c->text.size, "id", &length);
        return id != NULL && strtoll(id, NULL, 10) == c->id && memmem(c->text.data, c->text.size, "21 degrees and sunny", 20) != NULL;
    }
    int n = snprintf(expected, sizeof expected, "{\"jsonrpc\":\"2.0\",\"id\":%lld,%s", (long long)c->id, RESULT);
    return c->text.size == (size_t)n && memcmp(c->text.data, expected, c->text.size) == 0;
}

/* One event of a stream. */
static void take_event(Connection *c, const char *event, size_t size, int64_t now) {
    size_t length;
    const char *at = memmem(event, size, "\"at ", 4);
    if (at == NULL) {
        char expected[64];
        int n = snprintf(expected, sizeof expected, "made %lld events", (long long)c->progress);
        if (size > 0 && event[0] == ':') return;
        const char *id = member(event, size, "id", &length);
        if (memmem(event, size, expected, (size_t)n) != NULL && id != NULL && strtoll(id, NULL, 10) == c->id) c->text.size = 1;
        else show("event", event, size);
        return;
    }
    if (number(event, size, "progress", -1) != (double)c->progress + 1 && !is_loose) {
        wrong_body++;
        show("lost or twice", event, size);
    }
    c->progress++;
    int64_t made = strtoll(at + 4, NULL, 10);
    double wait = (double)(now - made) / 100;
    /* While hundreds of streams are being opened, events wait for that. */
    if (what != STREAMS || (opened > 0 && made > opened)) add(&waits, wait);
    if (c->progress == 1) add(&firsts, wait);
    if (first_event == 0) first_event = now;
    last_event = now;
    events++;
}

static void take_events(Connection *c, int64_t now) {
    size_t start = 0;
    const char *end;
    while ((end = memmem(c->lines.data + start, c->lines.size - start, "\n\n", 2)) != NULL) {
        size_t size = (size_t)(end - c->lines.data) - start;
        take_event(c, c->lines.data + start, size, now);
        start += size + 2;
    }
    drop_front(&c->lines, start);
}

/* A piece of a report: compared with what the stub was asked for. */
static bool take_report(Connection *c, const char *data, size_t size) {
    static char expected[4 * PIECE];
    char before[200];
    int n = snprintf(before, sizeof before, "%s{\"jsonrpc\":\"2.0\",\"id\":%lld,\"result\":{\"content\":[{\"type\":\"text\",\"text\":\"",
                     report_as_event ? "event: message\ndata: " : "", (long long)c->id);
    const char *after = report_as_event ? "\"}],\"isError\":false}}\n\n" : "\"}],\"isError\":false}}";
    size_t first = (size_t)n, text = first + report_size, whole = text + strlen(after);
    if (is_loose) {
        c->received += size;
        return true;
    }
    while (size > 0) {
        size_t at = c->received, run;
        if (at >= whole) return false;
        if (at < first) {
            run = first - at < size ? first - at : size;
            if (memcmp(data, before + at, run) != 0) return false;
        } else if (at < text) {
            run = text - at < size ? text - at : size;
            if (run > sizeof expected) run = sizeof expected;
            prose(expected, at - first, run, report_size);
            if (memcmp(data, expected, run) != 0) return false;
        } else {
            run = whole - at < size ? whole - at : size;
            if (memcmp(data, after + (at - text), run) != 0) return false;
        }
        c->received += run;
        data += run;
        size -= run;
    }
    return true;
}

static void close_connection(Connection *c) {
    if (!c->is_open) return;
    close(c->fd);
    c->is_open = false;
    open_connections--;
}

static void finished(Connection *c, int64_t now) {
    bool right = c->status == 200;
    if (!right) {
        wrong_status++;
        show("status", c->text.data, c->text.size);
    } else if (what == CALLS) {
        right = is_right_weather(c);
        if (!right) show("body", c->text.data, c->text.size);
    } else if (what == STREAMS || what == FLOOD || what == FIRST) {
        right = c->text.size == 1;
        if (!right) show("no result", c->lines.data, c->lines.size);
    } else if (what == REPORT) {
        right = c->received >= report_size;
        if (!right) show("body", c->text.data, c->text.size);
        add(&firsts, (double)(c->first_byte - c->began) / 100);
        add(&rates, (double)c->received / ((double)(now - c->began) / 1e9) / 1e5);
    }
    if (!right && c->status == 200) wrong_body++;
    if (right && what != IDLE) done++;
    if (right && what == CALLS) add(&waits, (double)(now - c->began) / 100);
    bytes += c->received;
    c->lines.size = 0;
    if (what == IDLE && c->step == 1 && right && c->session.size > 0) next_request(c);
    else if (what == CALLS && now < stop) next_request(c);
    else if ((what == FIRST || what == REPORT) && --times > 0 && right) next_request(c);
    else close_connection(c);
}

static void take_head(Connection *c, int64_t now) {
    size_t length, size = head_size(c->raw.data, c->raw.size);
    const char *value;
    if (size == 0) return;
    c->status = size > 12 ? atoi(c->raw.data + 9) : 0;
    c->body = body_of(c->raw.data, size, true);
    c->first_byte = now;
    if (c->session.size == 0 && (value = field(c->raw.data, size, "Mcp-Session-Id", &length)) != NULL) {
        append(&c->session, "Mcp-Session-Id: ", 16);
        append(&c->session, value, length);
        append(&c->session, "\r\n", 2);
    }
    if (what == STREAMS && ++begun == asked) {
        opened = now;
        printf("open\n");
        fflush(stdout);
    }
    if (what == IDLE && c->step == 2) {
        if (c->status == 200 && c->body.state != COMPLETE) done++;
        else show("stream", c->raw.data, size);
    }
    drop_front(&c->raw, size);
}

static bool take_content(Connection *c, const char *data, size_t size, int64_t now) {
    if (c->status == 200 && what == REPORT) return take_report(c, data, size);
    if (c->status == 200 && (what == STREAMS || what == FLOOD || what == FIRST)) {
        if (!is_loose) append(&c->lines, data, size);
        /* Others end their lines with CRLF. */
        for (size_t i = 0; is_loose && i < size; i++)
            if (data[i] != '\r') append(&c->lines, data + i, 1);
        take_events(c, now);
    } else if (what == CALLS || c->status != 200) {
        append(&c->text, data, size);
    }
    return true;
}

static void take(Connection *c) {
    size_t at = 0, used, size = 0;
    const char *run = NULL;
    reserve(&c->raw, what == IDLE ? 1024 : 4 * PIECE);
    ssize_t n = recv(c->fd, c->raw.data + c->raw.size, c->raw.capacity - c->raw.size, 0);
    int64_t now = now_ns();
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (n <= 0) {
        if (n == 0 && c->body.state == UNTIL_CLOSE) {
            finished(c, now);
        } else {
            const char *reason = n == 0 ? "ended" : strerror(errno);
            broken++;
            show("connection", reason, strlen(reason));
        }
        close_connection(c);
        return;
    }
    last_heard = now;
    c->raw.size += (size_t)n;
    if (c->body.state == HEAD) take_head(c, now);
    if (c->body.state == HEAD) return;
    while ((used = body_take(&c->body, c->raw.data + at, c->raw.size - at, &run, &size)) > 0) {
        at += used;
        if (size > 0 && !take_content(c, run, size, now)) {
            wrong_body++;
            show("body", run, size);
            close_connection(c);
            return;
        }
    }
    drop_front(&c->raw, at);
    if (c->body.state == COMPLETE) finished(c, now);
    else if (c->body.state == BROKEN) {
        broken++;
        show("framing", c->raw.data, c->raw.size);
        close_connection(c);
    }
}

static void open_connection(Connection *c) {
    struct sockaddr_in address = loopback(port);
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (c->fd < 0) fail("socket");
    if (connect(c->fd, (struct sockaddr *)&address, sizeof address) != 0) fail("connect");
    set_up_socket(c->fd);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, c->fd, &event) != 0) fail("epoll_ctl");
    c->is_open = true;
    open_connections++;
}

static void hear(int milliseconds) {
    struct epoll_event ready[256];
    int n = epoll_wait(poller, ready, 256, milliseconds);
    for (int i = 0; i < n; i++) {
        Connection *c = ready[i].data.ptr;
        if (c->is_open) take(c);
    }
}

static bool is_late(void) { return now_ns() - last_heard > (int64_t)GIVE_UP; }

static void report(int connections) {
    qsort(waits.values, waits.count, sizeof *waits.values, order);
    qsort(firsts.values, firsts.count, sizeof *firsts.values, order);
    qsort(rates.values, rates.count, sizeof *rates.values, order);
    double whole = (double)(last_heard - started) / 1e9, flow = (double)(last_event - first_event) / 1e9;
    printf("{\"connections\": %d, \"done\": %lld, \"seconds\": %.6f, \"wrong_status\": %lld, \"wrong_body\": %lld, "
           "\"broken\": %lld, \"unanswered\": %d, \"example\": \"%s\", \"events\": %lld, \"events_seconds\": %.6f, "
           "\"p50\": %.1f, \"p99\": %.1f, \"first_p50\": %.1f, \"first_p99\": %.1f, \"mb_per_s\": %.1f, \"bytes\": %zu}\n",
           connections, (long long)done, whole, (long long)wrong_status, (long long)wrong_body, (long long)broken,
           what == IDLE ? 0 : open_connections, example, (long long)events, flow, part(&waits, 0.5), part(&waits, 0.99),
           part(&firsts, 0.5), part(&firsts, 0.99), part(&rates, 0.5), bytes);
}

int main(int count, char **arguments) {
    static const char *const names[] = {"calls", "streams", "flood", "first", "report", "idle"};
    static const int needed[] = {6, 7, 6, 5, 7, 5};
    size_t kind = 0;
    int connections = 1;
    while (kind < IDLE + 1 && (count < 2 || strcmp(arguments[1], names[kind]) != 0)) kind++;
    if (kind == IDLE + 1 || count != needed[kind]) {
        fprintf(stderr, "usage: load calls|streams|flood|first|report|idle PORT PATH ...; see the source\n");
        return 2;
    }
    set_up_process();
    what = kind;
    port = atoi(arguments[2]);
    path = arguments[3];
    fields = getenv("BENCH_FIELDS") ? getenv("BENCH_FIELDS") : "";
    is_loose = getenv("BENCH_LOOSE") != NULL;
    if (what != FIRST && what != REPORT) connections = atoi(arguments[4]);
    if (what == CALLS) seconds = atof(arguments[5]);
    if (what == STREAMS) rate = atof(arguments[5]), seconds = atof(arguments[6]);
    if (what == FLOOD) times = atoi(arguments[5]);
    if (what == FIRST) times = atoi(arguments[4]);
    if (what == REPORT)
        report_size = strtoull(arguments[4], NULL, 10), times = atoi(arguments[5]), report_as_event = atoi(arguments[6]);
    asked = connections;
    poller = epoll_create1(0);
    Connection *all = calloc((size_t)connections, sizeof *all);
    if (all == NULL || poller < 0) fail("set-up");
    for (int i = 0; i < connections; i++) {
        all[i].id = 1000000 + (int64_t)i * 10000000; /* as many digits in every request */
        open_connection(&all[i]);
    }
    started = last_heard = now_ns();
    stop = started + (int64_t)(seconds * 1e9);
    for (int i = 0; i < connections; i++) next_request(&all[i]);
    if (what == IDLE) {
        while (done < connections && open_connections == connections && !is_late()) hear(100);
        printf("ready\n");
        fflush(stdout);
        char byte;
        fcntl(0, F_SETFL, O_NONBLOCK);
        while (read(0, &byte, 1) != 0) hear(50);
    } else {
        while (open_connections > 0 && !is_late()) hear(100);
    }
    report(connections);
    return 0;
}
