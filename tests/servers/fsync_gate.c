/* LD_PRELOAD: fsync and fdatasync wait while the file FSYNC_GATE exists, as on a disk that does not answer. The file
 * FSYNC_GATE.reached appears when one waits. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static void wait_for_gate(void)
{
    const char *gate = getenv("FSYNC_GATE");
    char reached[4096];
    struct timespec pause = {0, 5000000};
    while (gate && access(gate, F_OK) == 0) {
        snprintf(reached, sizeof reached, "%s.reached", gate);
        close(open(reached, O_CREAT | O_WRONLY, 0644));
        nanosleep(&pause, NULL);
    }
}

int fsync(int fd)
{
    static int (*real)(int);
    if (!real) real = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    wait_for_gate();
    return real(fd);
}

int fdatasync(int fd)
{
    static int (*real)(int);
    if (!real) real = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    wait_for_gate();
    return real(fd);
}
