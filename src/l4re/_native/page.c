/* What both halves of a session do with the page and the socket beside it. */
#include "page.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

struct page *page_map(int memfd)
{
    struct page *page = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, memfd, 0);
    if (page == MAP_FAILED)
        return NULL;
    madvise(page, PAGE_BYTES, MADV_DONTFORK);           /* a forked child must not see a call of its parent */
    return page;
}

int64_t spin_setting(void)
{
    const char *setting = getenv("L4RE_SPIN_US");
    char *end;
    double microseconds = setting ? strtod(setting, &end) : -1;
    if (!setting || end == setting || !(microseconds >= 0 && microseconds <= 1e6))
        return SPIN_DEFAULT_NS;
    return (int64_t)(microseconds * 1000);
}

void inbox_clear(struct inbox *inbox)
{
    io_close_all(inbox->fds, inbox->count);
    inbox->count = 0;
}

/* One packet; false when there was none (or the end, or an error: see the flags). */
static bool inbox_read(struct inbox *inbox, int sock, int flags, char *kind)
{
    struct packet packet;
    int fds[IO_MAX_FDS], count;
    ssize_t got = io_recv_flags(sock, &packet, sizeof packet, fds, &count, flags);
    if (got <= 0) {
        if (got == 0)
            inbox->end = true;
        else if (got != -EAGAIN && got != -EINTR)
            inbox->broken = true;
        return false;
    }
    *kind = packet.kind;
    if (packet.kind == 'C' && got >= (ssize_t)offsetof(struct packet, text) && count && !inbox->count) {
        memcpy(inbox->fds, fds, sizeof(int) * (size_t)count);
        inbox->count = count;
        inbox->sequence = packet.sequence;
        return true;
    }
    io_close_all(fds, count);
    if (packet.kind == 'R') {
        size_t length = (size_t)got > offsetof(struct packet, text) ? (size_t)got - offsetof(struct packet, text) : 0;
        if (length >= sizeof inbox->refusal)
            length = sizeof inbox->refusal - 1;
        memcpy(inbox->refusal, packet.text, length);
        inbox->refusal[length] = 0;
        inbox->refused = true;
    } else if (packet.kind != 'w' || count)
        inbox->broken = true;
    return true;
}

bool inbox_drain(struct inbox *inbox, int sock, bool block)
{
    char kind;
    while (inbox_read(inbox, sock, block ? 0 : MSG_DONTWAIT, &kind)) {
        if (kind != 'C' || inbox->broken)
            return true;
        block = false;
    }
    return false;
}

bool inbox_claim(struct inbox *inbox, int sock, uint64_t sequence, unsigned count)
{
    char kind;
    for (int packets = 0; packets < 1024; packets++) {  /* wake-ups may lie before it */
        if (inbox->count && inbox->sequence == sequence)
            return (unsigned)inbox->count == count;
        if (inbox->broken || !inbox_read(inbox, sock, MSG_DONTWAIT, &kind))
            return false;
    }
    return false;
}
