#define _GNU_SOURCE
#include "files.h"
#include "shim.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#define DRAFT ".turn"
#define NAME "turn"

static _Noreturn void give_up(const char *what)
{
    say("cannot %s " CONTROL "/" NAME ": %s", what, strerror(errno));
    exit(1);
}

/* The pipe has its name only once this process reads from it, so that whoever finds it can open it at once. */
static int make_pipe(int control)
{
    remove_all(control, DRAFT);
    remove_all(control, NAME);
    if (mkfifoat(control, DRAFT, 0666) || fchmodat(control, DRAFT, 0666, 0))
        give_up("make");
    int turn = openat(control, DRAFT, O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC);
    if (turn < 0 || renameat(control, DRAFT, control, NAME))
        give_up("open");
    return turn;
}

enum order next_order(int turn)
{
    char byte;
    ssize_t size = read(turn, &byte, 1);
    return size == 0 ? FORSAKEN : size > 0 && strchr("GTK", byte) ? byte : NONE;
}

int await_turn(int control, int signals)
{
    prctl(PR_SET_DUMPABLE, 0); /* the program cannot open this process' pipe by way of /proc */
    int turn = make_pipe(control);
    struct pollfd both[] = {{signals, POLLIN, 0}, {turn, POLLIN, 0}};
    for (enum order order = NONE; order != GO;) {
        struct signalfd_siginfo signal;
        poll(both, 2, -1);
        if (both[0].revents && read(signals, &signal, sizeof signal) > 0 && signal.ssi_signo != SIGCHLD)
            exit(128 + SIGTERM);
        if (both[1].revents && (order = next_order(turn)) != NONE && order != GO)
            exit(128 + SIGTERM);
    }
    remove_all(control, NAME);
    return turn;
}
