/*
 * ask: how many look-ups a second the name server of this network namespace answers.
 *
 *   ask SECONDS NAME     asks the first server of /etc/resolv.conf for A records of NAME; prints answers a second
 *
 * A hundred questions are under way at once, on four sockets, sent and received in batches: the asker takes a small part of what
 * the answerer takes, so that the answerer is what is measured. An answer with an error, without a record or to an unknown number
 * is a failure, and so is one that does not come within a second; any failure gives the exit code 1.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { SOCKETS = 4, OPEN = 25, ANSWER_BYTES = 512 };

static unsigned char question[300];
static size_t question_length;

static void die(const char *what)
{
    fprintf(stderr, "ask: %s: %s\n", what, strerror(errno));
    exit(2);
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

static void make_question(const char *name)
{
    unsigned char *at = question + 12;
    question[2] = 1;                       /* recursion desired */
    question[5] = 1;                       /* one question */
    while (*name) {
        size_t length = strcspn(name, ".");
        if (length == 0 || length > 63 || at + length > question + 260) { errno = EINVAL; die(name); }
        *at++ = length;
        memcpy(at, name, length);
        at += length;
        name += length + (name[length] == '.');
    }
    memcpy(at, "\0\0\1\0\1", 5);           /* the root, A, IN */
    question_length = at + 5 - question;
}

static void server(struct sockaddr_in *address)
{
    char line[300], text[300];
    FILE *file = fopen("/etc/resolv.conf", "r");
    if (!file) die("/etc/resolv.conf");
    while (fgets(line, sizeof line, file))
        if (sscanf(line, "nameserver %299s", text) == 1 && inet_pton(AF_INET, text, &address->sin_addr) == 1) {
            address->sin_family = AF_INET;
            address->sin_port = htons(53);
            return;
        }
    errno = ENOENT;
    die("an IPv4 name server");
}

/* Sends questions numbered from `first`; each slot of a socket has its own number, so that answers are told apart. */
static void ask(int fd, const int *slots, int count)
{
    static unsigned char bytes[OPEN][sizeof question];
    struct mmsghdr messages[OPEN] = {0};
    struct iovec pieces[OPEN];
    for (int i = 0; i < count; i++) {
        memcpy(bytes[i], question, question_length);
        bytes[i][1] = slots[i];
        pieces[i] = (struct iovec){bytes[i], question_length};
        messages[i].msg_hdr.msg_iov = &pieces[i];
        messages[i].msg_hdr.msg_iovlen = 1;
    }
    for (int sent = 0; sent < count;) {
        int some = sendmmsg(fd, messages + sent, count - sent, 0);
        if (some < 0) die("send");
        sent += some;
    }
}

int main(int count, char **words)
{
    if (count != 3) { fprintf(stderr, "usage: ask SECONDS NAME\n"); return 2; }
    struct sockaddr_in address = {0};
    struct pollfd sockets[SOCKETS];
    double asked[SOCKETS][OPEN];
    unsigned long answers = 0, failures = 0;
    server(&address);
    make_question(words[2]);
    double begin = now(), end = begin + atof(words[1]), swept = begin;
    for (int s = 0; s < SOCKETS; s++) {
        sockets[s] = (struct pollfd){socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0), POLLIN, 0};
        if (sockets[s].fd < 0 || connect(sockets[s].fd, (struct sockaddr *)&address, sizeof address)) die("connect");
        int slots[OPEN];
        for (int i = 0; i < OPEN; i++) { slots[i] = i; asked[s][i] = begin; }
        ask(sockets[s].fd, slots, OPEN);
    }
    while (now() < end) {
        if (poll(sockets, SOCKETS, 100) < 0) die("poll");
        double time = now();
        for (int s = 0; s < SOCKETS; s++) {
            static unsigned char bytes[OPEN][ANSWER_BYTES];
            struct mmsghdr messages[OPEN] = {0};
            struct iovec pieces[OPEN];
            if (!sockets[s].revents) continue;
            for (int i = 0; i < OPEN; i++) {
                pieces[i] = (struct iovec){bytes[i], ANSWER_BYTES};
                messages[i].msg_hdr.msg_iov = &pieces[i];
                messages[i].msg_hdr.msg_iovlen = 1;
            }
            int got = recvmmsg(sockets[s].fd, messages, OPEN, MSG_DONTWAIT, 0), slots[OPEN], free = 0;
            if (got < 0 && errno != EAGAIN) { failures++; continue; }
            for (int i = 0; i < got; i++) {
                int slot = bytes[i][1];
                int is_right = messages[i].msg_len > question_length && bytes[i][0] == 0 && slot < OPEN && (bytes[i][2] & 0x80)
                               && (bytes[i][3] & 15) == 0 && bytes[i][7] > 0;
                if (!is_right) { failures++; continue; }
                answers++;
                asked[s][slot] = time;
                slots[free++] = slot;
            }
            ask(sockets[s].fd, slots, free);
        }
        if (time - swept > 0.2) {          /* what was lost is asked again */
            swept = time;
            for (int s = 0; s < SOCKETS; s++)
                for (int i = 0; i < OPEN; i++)
                    if (time - asked[s][i] > 1) { failures++; asked[s][i] = time; ask(sockets[s].fd, &i, 1); }
        }
    }
    printf("%.0f answers a second, %lu failures\n", answers / (now() - begin), failures);
    return failures > 0;
}
