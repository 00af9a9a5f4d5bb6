/* How fast libogg cuts a file into pages and checks them: ogg_sync_pageout over blocks copied from memory, and read from the file.
 * Prints lines as core/benches/scan.rs does. */
#include <fcntl.h>
#include <ogg/ogg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* CPU time of this process, in seconds. */
static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void fail(const char *what) {
    perror(what);
    exit(1);
}

/* Pages in the whole file; memory NULL: read from fd. */
static long scan(const char *memory, long length, int fd, long block) {
    ogg_sync_state sync;
    ogg_page page;
    long pages = 0, at = 0;
    ogg_sync_init(&sync);
    while (at < length) {
        long part = length - at < block ? length - at : block;
        char *space = ogg_sync_buffer(&sync, part);
        if (!space) fail("ogg_sync_buffer");
        if (memory) {
            memcpy(space, memory + at, (size_t)part);
        } else {
            part = pread(fd, space, (size_t)part, at);
            if (part <= 0) fail("read");
        }
        ogg_sync_wrote(&sync, part);
        at += part;
        while (1) {
            int got = ogg_sync_pageout(&sync, &page);
            if (got == 0) break;
            if (got < 0) fail("a page was skipped");
            pages++;
        }
    }
    ogg_sync_clear(&sync);
    return pages;
}

int main(int argc, char **argv) {
    static const long blocks[] = {4096, 65536, 1 << 20};
    struct stat info;
    if (argc != 2) return fprintf(stderr, "usage: libogg FILE\n"), 2;
    int fd = open(argv[1], O_RDONLY);
    if (fd < 0 || fstat(fd, &info)) fail(argv[1]);
    long length = info.st_size;
    char *memory = malloc((size_t)length);
    if (!memory) fail("malloc");
    for (long at = 0, got; at < length; at += got)
        if ((got = pread(fd, memory + at, (size_t)(length - at), at)) <= 0) fail("read");

    for (int from_file = 0; from_file < 2; from_file++) {
        /* The block size that suits it best. */
        double best = 1e9;
        long pages = 0;
        for (size_t b = 0; b < sizeof blocks / sizeof *blocks; b++)
            for (int round = 0; round < 3; round++) {
                double start = now();
                pages = scan(from_file ? NULL : memory, length, fd, blocks[b]);
                double took = now() - start;
                if (took < best) best = took;
            }
        printf("libogg, %s\t%.0f\t%ld\n", from_file ? "file" : "blocks copied from memory", (double)length / best / 1e6, pages);
    }
    return 0;
}
