/* What the stub server and the load generator share: time, growing buffers, just enough HTTP/1.1, and the text of
 * large results, which the one makes and the other compares byte for byte. */

#ifndef TRAFFIC_H
#define TRAFFIC_H

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define PIECE (64 * 1024)

static inline int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static inline void fail(const char *what) {
    perror(what);
    exit(1);
}

/* Whoever starts a program of ours has it ended with itself; thousands of connections need thousands of files. */
static inline void set_up_process(void) {
    struct rlimit files;
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    signal(SIGPIPE, SIG_IGN);
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
}

static inline void set_up_socket(int fd) {
    int yes = 1;
    fcntl(fd, F_SETFL, O_NONBLOCK);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
}

static inline struct sockaddr_in loopback(int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

/* -- buffers ------------------------------------------------------------------------------------------------------ */

typedef struct {
    char *data;
    size_t size, capacity;
} Buffer;

static inline void reserve(Buffer *buffer, size_t more) {
    if (buffer->size + more <= buffer->capacity) return;
    size_t capacity = buffer->capacity ? buffer->capacity : 1024;
    while (capacity < buffer->size + more) capacity *= 2;
    char *data = realloc(buffer->data, capacity);
    if (data == NULL) fail("realloc");
    buffer->data = data;
    buffer->capacity = capacity;
}

static inline void append(Buffer *buffer, const char *data, size_t size) {
    reserve(buffer, size);
    memcpy(buffer->data + buffer->size, data, size);
    buffer->size += size;
}

static inline void drop_front(Buffer *buffer, size_t size) {
    buffer->size -= size;
    memmove(buffer->data, buffer->data + size, buffer->size);
}

/* -- HTTP --------------------------------------------------------------------------------------------------------- */

/* The length of the header with its empty line, or 0 while it is not complete. */
static inline size_t head_size(const char *data, size_t size) {
    const char *end = memmem(data, size, "\r\n\r\n", 4);
    return end == NULL ? 0 : (size_t)(end - data) + 4;
}

/* The value of a header field, or NULL; *length is without white space around it. */
static inline const char *field(const char *head, size_t size, const char *name, size_t *length) {
    size_t name_length = strlen(name);
    const char *end = head + size;
    for (const char *line = memchr(head, '\n', size); line != NULL; line = memchr(line, '\n', (size_t)(end - line))) {
        line++;
        if ((size_t)(end - line) <= name_length) return NULL;
        if (line[name_length] != ':' || strncasecmp(line, name, name_length) != 0) continue;
        const char *value = line + name_length + 1;
        while (value < end && (*value == ' ' || *value == '\t')) value++;
        const char *stop = memchr(value, '\r', (size_t)(end - value));
        *length = stop == NULL ? 0 : (size_t)(stop - value);
        return value;
    }
    return NULL;
}

static inline bool is_chunked(const char *head, size_t size) {
    size_t length;
    const char *value = field(head, size, "Transfer-Encoding", &length);
    return value != NULL && length == 7 && strncasecmp(value, "chunked", 7) == 0;
}

/* A message's body as it comes.  `left` counts what is missing of the body or of the chunk. */
typedef struct {
    enum { HEAD, LENGTH, CHUNK_SIZE, CHUNK, CHUNK_END, TRAILER, UNTIL_CLOSE, COMPLETE, BROKEN } state;
    size_t left;
} Body;

static inline Body body_of(const char *head, size_t size, bool without_length_until_close) {
    size_t length;
    const char *value = field(head, size, "Content-Length", &length);
    if (is_chunked(head, size)) return (Body){CHUNK_SIZE, 0};
    if (value != NULL) {
        size_t left = strtoull(value, NULL, 10);
        return (Body){left ? LENGTH : COMPLETE, left};
    }
    return (Body){without_length_until_close ? UNTIL_CLOSE : COMPLETE, 0};
}

/* Takes a run of the body from data: returns how many bytes were used up, and sets *run, *run_size to what of them is
 * content.  Returns 0 when more is needed. */
static inline size_t body_take(Body *body, const char *data, size_t size, const char **run, size_t *run_size) {
    const char *end;
    size_t used;
    *run_size = 0;
    if (size == 0) return 0;
    switch (body->state) {
    case UNTIL_CLOSE:
        *run = data;
        return *run_size = size;
    case LENGTH:
    case CHUNK:
        used = size < body->left ? size : body->left;
        *run = data;
        *run_size = used;
        body->left -= used;
        if (body->left == 0) body->state = body->state == LENGTH ? COMPLETE : CHUNK_END;
        return used;
    case CHUNK_END:
        if (size < 2) return 0;
        body->state = data[0] == '\r' && data[1] == '\n' ? CHUNK_SIZE : BROKEN;
        return 2;
    case CHUNK_SIZE:
        end = memchr(data, '\n', size);
        if (end == NULL) return 0;
        body->left = strtoull(data, NULL, 16);
        body->state = body->left ? CHUNK : TRAILER;
        return (size_t)(end - data) + 1;
    case TRAILER:
        end = memchr(data, '\n', size);
        if (end == NULL) return 0;
        if (end - data <= 1) body->state = COMPLETE;
        return (size_t)(end - data) + 1;
    default:
        return 0;
    }
}

/* The value of a member called name, wherever it is first found: enough for requests of our own making. */
static inline const char *member(const char *text, size_t size, const char *name, size_t *length) {
    char quoted[64];
    int quoted_length = snprintf(quoted, sizeof quoted, "\"%s\"", name);
    const char *end = text + size;
    const char *found = memmem(text, size, quoted, (size_t)quoted_length);
    if (found == NULL) return NULL;
    for (found += quoted_length; found < end && (*found == ' ' || *found == ':'); found++) continue;
    const char *stop = found;
    if (found < end && *found == '"') {
        stop = memchr(found + 1, '"', (size_t)(end - found - 1));
        if (stop == NULL) return NULL;
        stop++;
    } else {
        while (stop < end && *stop != ',' && *stop != '}' && *stop != ']' && *stop != ' ') stop++;
    }
    *length = (size_t)(stop - found);
    return found;
}

static inline double number(const char *text, size_t size, const char *name, double otherwise) {
    size_t length;
    const char *value = member(text, size, name, &length);
    return value == NULL ? otherwise : strtod(value, NULL);
}

/* -- large results ------------------------------------------------------------------------------------------------ */

static const char PROSE[] =
    "The station at the harbour reports light winds from the south-west, and the sea is calm.\\n"
    "Visibility was good until noon; then \\\"patches of fog\\\" came in, and ferries ran late by some 20 minutes.\\n"
    "In the valley, temperatures rose to 21.5 \\u00b0C, which is 3.2 above the mean of the last thirty years.\\n\\t"
    "Gr\\u00fc\\u00dfe aus dem Tal: tomorrow begins dry, with a chance of rain after 16:00 (see forecast/oslo-2).\\n";

#define PROSE_SIZE (sizeof PROSE - 1)

/* Copies text[offset:offset + size] of a text of `total` bytes: whole paragraphs, and full stops for what is left over,
 * so that no escape is cut. */
static inline void prose(char *into, size_t offset, size_t size, size_t total) {
    size_t whole = total - total % PROSE_SIZE;
    while (size > 0) {
        size_t start = offset % PROSE_SIZE, part;
        if (offset >= whole) {
            memset(into, '.', size);
            return;
        }
        part = PROSE_SIZE - start < size ? PROSE_SIZE - start : size;
        memcpy(into, PROSE + start, part);
        into += part;
        offset += part;
        size -= part;
    }
}

#endif
