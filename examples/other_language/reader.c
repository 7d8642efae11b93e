/* A program in C that was handed a dataspace "text" and an IRQ "read": it prints the one and triggers the other.
 * The page that says which descriptor is which is described in docs/reference/env-page.md. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static char page[65536];

/* Read the page, if there is one that is addressed to this process. */
static int read_page(void)
{
    const char *variable = getenv("L4RE_ENV");
    ssize_t size = variable ? pread(atoi(variable), page, sizeof page - 1, 0) : -1;
    long pid;
    return size > 0 && sscanf(page, "l4re-env 1\npid %ld\n", &pid) == 1 && pid == (long)getpid();
}

/* Return the first descriptor of a capability, -1 if there is none of this kind and name; `value` as the page has it. */
static int find(const char *kind, const char *name, unsigned long long *value)
{
    for (const char *line = page; line; line = strchr(line, '\n')) {
        char its_kind[16], rights[8], fds[64];
        int at = 0;
        line += *line == '\n';
        if (sscanf(line, "cap %15s %7s %llu %63s %n", its_kind, rights, value, fds, &at) < 4)
            continue;
        if (strcmp(its_kind, kind) == 0 && strncmp(line + at, name, strlen(name)) == 0 && line[at + strlen(name)] == '\n')
            return atoi(fds);
    }
    return -1;
}

int main(void)
{
    unsigned long long size, none;
    if (!read_page())
        return fprintf(stderr, "nobody handed this program anything\n"), 1;
    int memory = find("dataspace", "text", &size), irq = find("irq", "read", &none);
    if (memory < 0 || irq < 0)
        return fprintf(stderr, "wanted a dataspace 'text' and an IRQ 'read'\n"), 1;
    const char *text = mmap(NULL, size, PROT_READ, MAP_SHARED, memory, 0);
    if (text == MAP_FAILED)
        return perror("mmap"), 1;
    printf("C read: %.*s\n", (int)strnlen(text, size), text);
    fflush(stdout);
    return write(irq, "\1", 1) == 1 ? 0 : (perror("trigger"), 1);
}
