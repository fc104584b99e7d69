/*
 * answer: the least that a name server can do, to see how much of a figure is the asker's own.
 *
 *   answer     listens on 127.0.0.1:53 of this network namespace and answers every question with 192.0.2.1, without reading it
 *              further than to its end; by the batch, until it is killed
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum { BATCH = 32, BYTES = 512, HEADER = 12 };

static const unsigned char record[] = {0xc0, HEADER, 0, 1, 0, 1, 0, 0, 2, 0x58, 0, 4, 192, 0, 2, 1};

static void die(const char *what)
{
    perror(what);
    exit(2);
}

/* Makes an answer of the question in `bytes`; gives its length, 0 for what is no question. */
static size_t answer(unsigned char *bytes, size_t length)
{
    size_t end = HEADER;
    while (end < length && bytes[end])
        end += bytes[end] + 1;
    end += 5;                              /* the root, type and class */
    if (end > length || end + sizeof record > BYTES) return 0;
    bytes[2] |= 0x80;                      /* an answer */
    bytes[3] = 0x80;                       /* recursion available, no error */
    memset(bytes + 6, 0, 6);
    bytes[7] = 1;                          /* one record */
    memcpy(bytes + end, record, sizeof record);
    return end + sizeof record;
}

int main(void)
{
    static unsigned char bytes[BATCH][BYTES];
    static struct sockaddr_in askers[BATCH];
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(53), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address)) die("127.0.0.1:53");
    for (;;) {
        struct pollfd wait = {fd, POLLIN, 0};
        struct mmsghdr messages[BATCH] = {0};
        struct iovec pieces[BATCH];
        if (poll(&wait, 1, -1) < 0) die("poll");
        for (int i = 0; i < BATCH; i++) {
            pieces[i] = (struct iovec){bytes[i], BYTES};
            messages[i].msg_hdr = (struct msghdr){.msg_name = &askers[i], .msg_namelen = sizeof askers[i], .msg_iov = &pieces[i], .msg_iovlen = 1};
        }
        int count = recvmmsg(fd, messages, BATCH, 0, NULL);
        for (int i = 0; i < count; i++)
            pieces[i].iov_len = answer(bytes[i], messages[i].msg_len);
        for (int sent = 0; sent < count;) {
            int more = sendmmsg(fd, messages + sent, count - sent, 0);
            sent += more > 0 ? more : 1;   /* one that cannot be sent is lost */
        }
    }
}
