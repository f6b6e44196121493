/* The MCP server behind every subject of the benchmark: answers what it was made to answer, as fast as one core can.
 *
 *     stub PORT                listens on 127.0.0.1; prints the port once it does (0 = any free one)
 *
 * tools/call, by the tool's name and arguments:
 *     get_weather                                 a small JSON result
 *     get_events  count, seconds, rate, size      an event stream of progress messages, each written when it is made:
 *                                                 `count` of them, or as many as fit into `seconds`; `rate` a second, or
 *                                                 as fast as they are taken (0).  Each holds the time at which it was made.
 *     get_report  bytes, events                   a result of `bytes` of prose, never held; as one event if `events` is 1
 * Every other request of a client has the answer that a session needs; a GET is a stream on which nothing comes. */

#include "traffic.h"

#define TURN 64 /* events, or pieces of a report, before other connections have their turn */

typedef struct Client {
    int fd;
    enum { NOTHING, EVENTS, REPORT, SILENCE } making;
    bool wants_write, is_paced;
    Buffer in, out, id, token;
    size_t sent; /* of out */
    /* of the stream or report that is being made */
    int64_t count, made, interval, due, end;
    size_t padding, total, offset;
    bool as_event;
    Buffer before, after;
    struct Client *previous, *next; /* among those that are paced */
} Client;

static int poller;
static Client *paced;
static uint64_t sessions;
static int64_t phase = 1; /* goes through 1 to 1020 in a jumble: 10 is a primitive root of 1021 */

static const char TOOLS[] =
    "{\"name\":\"get_weather\",\"description\":\"The weather in a city.\",\"inputSchema\":{\"type\":\"object\",\"properties\":{\"city\":"
    "{\"type\":\"string\"}},\"required\":[\"city\"]}},"
    "{\"name\":\"get_events\",\"description\":\"Reports as they come in.\",\"inputSchema\":{\"type\":\"object\",\"properties\":{\"count\":"
    "{\"type\":\"integer\"},\"seconds\":{\"type\":\"number\"},\"rate\":{\"type\":\"number\"},\"size\":{\"type\":\"integer\"}}}},"
    "{\"name\":\"get_report\",\"description\":\"A long report.\",\"inputSchema\":{\"type\":\"object\",\"properties\":{\"bytes\":"
    "{\"type\":\"integer\"},\"events\":{\"type\":\"integer\"}}}}";

static void unlink_paced(Client *client) {
    if (!client->is_paced) return;
    if (client->previous != NULL) client->previous->next = client->next;
    else paced = client->next;
    if (client->next != NULL) client->next->previous = client->previous;
    client->is_paced = false;
}

static void close_client(Client *client) {
    unlink_paced(client);
    close(client->fd);
    free(client->in.data);
    free(client->out.data);
    free(client->id.data);
    free(client->token.data);
    free(client->before.data);
    free(client->after.data);
    free(client);
}

static void watch(Client *client, bool write) {
    if (client->wants_write == write) return;
    struct epoll_event event = {.events = EPOLLIN | (write ? EPOLLOUT : 0), .data.ptr = client};
    if (epoll_ctl(poller, EPOLL_CTL_MOD, client->fd, &event) != 0) fail("epoll_ctl");
    client->wants_write = write;
}

/* True if everything has been sent; false also when the connection is gone, which the next read tells. */
static bool flush(Client *client) {
    while (client->sent < client->out.size) {
        ssize_t n = send(client->fd, client->out.data + client->sent, client->out.size - client->sent, 0);
        if (n <= 0) return false;
        client->sent += (size_t)n;
    }
    client->sent = client->out.size = 0;
    return true;
}

static void print(Buffer *buffer, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void print(Buffer *buffer, const char *format, ...) {
    va_list arguments;
    reserve(buffer, 1024);
    va_start(arguments, format);
    int n = vsnprintf(buffer->data + buffer->size, buffer->capacity - buffer->size, format, arguments);
    va_end(arguments);
    if (n < 0 || (size_t)n >= buffer->capacity - buffer->size) fail("print");
    buffer->size += (size_t)n;
}

static void chunk(Client *client, const char *data, size_t size) {
    print(&client->out, "%zx\r\n", size);
    append(&client->out, data, size);
    append(&client->out, "\r\n", 2);
}

static void answer(Client *client, const char *fields, const char *body, size_t size) {
    print(&client->out, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n%sContent-Length: %zu\r\n\r\n", fields, size);
    append(&client->out, body, size);
}

static void begin_stream(Client *client) {
    print(&client->out, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n"
                        "Transfer-Encoding: chunked\r\n\r\n");
}

static void add_event(Client *client) {
    static const char FILL[] = "Light winds from the south-west, calm sea. ";
    char text[4096];
    size_t fill = client->padding < 2048 ? client->padding : 2048;
    int n = snprintf(text, sizeof text,
                     "event: message\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":{\"progressToken\":%.*s,"
                     "\"progress\":%lld,\"message\":\"at %lld: ",
                     (int)client->token.size, client->token.data, (long long)client->made + 1, (long long)now_ns());
    for (size_t i = 0; i < fill; i++) text[n++] = FILL[i % (sizeof FILL - 1)];
    n += snprintf(text + n, sizeof text - (size_t)n, "\"}}\n\n");
    chunk(client, text, (size_t)n);
    client->made++;
}

static void end_events(Client *client) {
    Buffer text = {0};
    print(&text, "event: message\ndata: {\"jsonrpc\":\"2.0\",\"id\":%.*s,\"result\":{\"content\":[{\"type\":\"text\",\"text\":"
                 "\"made %lld events\"}],\"isError\":false}}\n\n",
          (int)client->id.size, client->id.data, (long long)client->made);
    chunk(client, text.data, text.size);
    print(&client->out, "0\r\n\r\n");
    free(text.data);
    client->making = NOTHING;
    unlink_paced(client);
}

static bool is_over(const Client *client, int64_t now) {
    return client->count ? client->made >= client->count : now >= client->end;
}

/* The next piece of prefix, prose and suffix. */
static void add_piece(Client *client) {
    size_t whole = client->before.size + client->total + client->after.size;
    size_t size = whole - client->offset < PIECE ? whole - client->offset : PIECE, left = size;
    if (client->as_event) print(&client->out, "%zx\r\n", size);
    reserve(&client->out, size + 16);
    while (left > 0) {
        char *into = client->out.data + client->out.size;
        size_t at = client->offset, part;
        if (at < client->before.size) {
            part = client->before.size - at < left ? client->before.size - at : left;
            memcpy(into, client->before.data + at, part);
        } else if ((at -= client->before.size) < client->total) {
            part = client->total - at < left ? client->total - at : left;
            prose(into, at, part, client->total);
        } else {
            at -= client->total;
            part = client->after.size - at < left ? client->after.size - at : left;
            memcpy(into, client->after.data + at, part);
        }
        client->out.size += part;
        client->offset += part;
        left -= part;
    }
    if (client->as_event) print(&client->out, "\r\n");
    if (client->offset == whole) {
        if (client->as_event) print(&client->out, "0\r\n\r\n");
        client->making = NOTHING;
    }
}

/* Sends and makes what can be sent and made now. */
static void go_on(Client *client) {
    for (int turn = 0; turn < TURN; turn++) {
        if (!flush(client)) {
            watch(client, true);
            return;
        }
        if (client->making == REPORT) {
            add_piece(client);
        } else if (client->making == EVENTS && !client->is_paced) {
            if (is_over(client, now_ns())) end_events(client);
            else add_event(client);
        } else {
            watch(client, false);
            return;
        }
    }
    watch(client, true);
}

static void keep(Buffer *buffer, const char *value, size_t length, const char *otherwise) {
    buffer->size = 0;
    append(buffer, value ? value : otherwise, value ? length : strlen(otherwise));
}

static void begin_events(Client *client, const char *body, size_t size) {
    size_t length;
    const char *token = member(body, size, "progressToken", &length);
    double rate = number(body, size, "rate", 0);
    int64_t now = now_ns();
    keep(&client->token, token, length, "0");
    client->making = EVENTS;
    client->made = 0;
    client->count = (int64_t)number(body, size, "count", 0);
    client->end = now + (int64_t)(number(body, size, "seconds", 1) * 1e9);
    client->padding = (size_t)number(body, size, "size", 64);
    begin_stream(client);
    if (rate > 0) {
        client->interval = (int64_t)(1e9 / rate);
        /* Streams of a certain length do not all speak at the same moment; the first event of a short one comes at once. */
        phase = phase * 10 % 1021;
        client->due = now + (client->count ? 0 : client->interval * phase / 1021);
        client->is_paced = true;
        client->previous = NULL;
        client->next = paced;
        if (paced != NULL) paced->previous = client;
        paced = client;
    }
}

static void begin_report(Client *client, const char *body, size_t size) {
    client->making = REPORT;
    client->offset = 0;
    client->total = (size_t)number(body, size, "bytes", 10e6);
    client->as_event = number(body, size, "events", 0) > 0;
    client->before.size = client->after.size = 0;
    print(&client->before, "%s{\"jsonrpc\":\"2.0\",\"id\":%.*s,\"result\":{\"content\":[{\"type\":\"text\",\"text\":\"",
          client->as_event ? "event: message\ndata: " : "", (int)client->id.size, client->id.data);
    print(&client->after, "\"}],\"isError\":false}}%s", client->as_event ? "\n\n" : "");
    if (client->as_event) begin_stream(client);
    else
        print(&client->out, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n",
              client->before.size + client->total + client->after.size);
}

static void respond(Client *client, const char *head, const char *body, size_t size) {
    size_t length = 0, name_length;
    Buffer text = {0};
    char fields[64] = "";
    const char *method, *name;
    if (strncmp(head, "GET ", 4) == 0) {
        begin_stream(client);
        client->making = SILENCE;
        return;
    }
    method = member(body, size, "method", &length);
    name = member(body, size, "id", &name_length);
    if (strncmp(head, "POST ", 5) != 0 || method == NULL) {
        answer(client, "", "", 0);
        return;
    }
    if (name == NULL) {
        print(&client->out, "HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n");
        return;
    }
    keep(&client->id, name, name_length, "null");
#define IS(TEXT) (length == sizeof TEXT + 1 && memcmp(method + 1, TEXT, sizeof TEXT - 1) == 0)
#define CALLS(TEXT) (name != NULL && name_length == sizeof TEXT + 1 && memcmp(name + 1, TEXT, sizeof TEXT - 1) == 0)
    print(&text, "{\"jsonrpc\":\"2.0\",\"id\":%.*s,", (int)client->id.size, client->id.data);
    if (IS("tools/call")) {
        name = member(body, size, "name", &name_length);
        if (CALLS("get_events")) {
            begin_events(client, body, size);
            goto done;
        }
        if (CALLS("get_report")) {
            begin_report(client, body, size);
            goto done;
        }
        if (CALLS("get_weather"))
            print(&text, "\"result\":{\"content\":[{\"type\":\"text\",\"text\":\"It is 21 degrees and sunny in Oslo today.\"}],"
                         "\"isError\":false}}");
        else
            print(&text, "\"error\":{\"code\":-32602,\"message\":\"no such tool\"}}");
    } else if (IS("initialize")) {
        snprintf(fields, sizeof fields, "Mcp-Session-Id: session-%016llx\r\n", (unsigned long long)++sessions);
        name = member(body, size, "protocolVersion", &name_length);
        print(&text, "\"result\":{\"protocolVersion\":%.*s,\"capabilities\":{\"tools\":{}},"
                     "\"serverInfo\":{\"name\":\"stub\",\"version\":\"1\"}}}",
              (int)(name ? name_length : 12), name ? name : "\"2025-11-25\"");
    } else if (IS("tools/list")) {
        print(&text, "\"result\":{\"tools\":[");
        append(&text, TOOLS, sizeof TOOLS - 1);
        print(&text, "]}}");
    } else if (IS("ping")) {
        print(&text, "\"result\":{}}");
    } else {
        print(&text, "\"error\":{\"code\":-32601,\"message\":\"no such method\"}}");
    }
    answer(client, fields, text.data, text.size);
done:
    free(text.data);
}

/* Answers the requests that have arrived whole, one after the other; false if what has arrived is no request. */
static bool take_requests(Client *client) {
    while (client->in.size > 0 && client->making == NOTHING) {
        size_t head = head_size(client->in.data, client->in.size), at = head, used, run_size;
        const char *run = NULL;
        if (head == 0) return client->in.size < PIECE;
        Body body = body_of(client->in.data, head, false);
        if (body.state == COMPLETE || body.state == LENGTH) {
            if (client->in.size - head < body.left) return true;
            at = head + body.left;
            respond(client, client->in.data, client->in.data + head, body.left);
        } else {
            Buffer content = {0};
            while ((used = body_take(&body, client->in.data + at, client->in.size - at, &run, &run_size)) > 0) {
                append(&content, run, run_size);
                at += used;
            }
            if (body.state == COMPLETE) respond(client, client->in.data, content.data, content.size);
            free(content.data);
            if (body.state != COMPLETE) return body.state != BROKEN;
        }
        drop_front(&client->in, at);
        go_on(client);
    }
    return true;
}

/* False if the connection has ended. */
static bool take(Client *client) {
    reserve(&client->in, PIECE / 4);
    ssize_t n = recv(client->fd, client->in.data + client->in.size, client->in.capacity - client->in.size, 0);
    if (n < 0) return errno == EAGAIN || errno == EINTR;
    if (n == 0) return false;
    client->in.size += (size_t)n;
    return take_requests(client);
}

static void make_paced(int64_t now) {
    for (Client *client = paced, *next; client != NULL; client = next) {
        next = client->next;
        if (client->due > now) continue;
        while (client->is_paced && client->due <= now) {
            if (is_over(client, now)) end_events(client);
            else add_event(client);
            client->due += client->interval;
        }
        go_on(client);
    }
}

/* Milliseconds until the next event is due, rounded up: what is late is late here, the time in it is right. */
static int pause_for(int64_t now) {
    int64_t due = INT64_MAX;
    for (Client *client = paced; client != NULL; client = client->next)
        if (client->due < due) due = client->due;
    if (paced == NULL) return -1;
    return due <= now ? 0 : (int)((due - now + 999999) / 1000000);
}

int main(int count, char **arguments) {
    struct epoll_event events[256];
    struct sockaddr_in address = loopback(count > 1 ? atoi(arguments[1]) : 0);
    socklen_t size = sizeof address;
    int yes = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
    set_up_process();
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(listener, (struct sockaddr *)&address, size) != 0 || listen(listener, 4096) != 0) fail("listen");
    getsockname(listener, (struct sockaddr *)&address, &size);
    set_up_socket(listener);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    poller = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    epoll_ctl(poller, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        int ready = epoll_wait(poller, events, 256, paced == NULL ? -1 : pause_for(now_ns()));
        for (int i = 0; i < ready; i++) {
            Client *client = events[i].data.ptr;
            if (client == NULL) {
                int fd;
                while ((fd = accept(listener, NULL, NULL)) >= 0) {
                    client = calloc(1, sizeof *client);
                    if (client == NULL) fail("calloc");
                    client->fd = fd;
                    set_up_socket(fd);
                    event = (struct epoll_event){.events = EPOLLIN, .data.ptr = client};
                    if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event) != 0) fail("epoll_ctl");
                }
                continue;
            }
            if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR) && !take(client)) {
                close_client(client);
                continue;
            }
            if (events[i].events & EPOLLOUT) {
                go_on(client);
                /* A request may have arrived while the last one was being answered. */
                if (client->making == NOTHING && !take_requests(client)) close_client(client);
            }
        }
        make_paced(now_ns());
    }
}
