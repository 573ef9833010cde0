#define _GNU_SOURCE
#include "files.h"
#include "shim.h"

#include <errno.h>
#include <fcntl.h>
#include <locale.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static int control;

static void mark(const char *name, const char *text)
{
    remove_all(control, name);
    int file = openat(control, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666);
    if (file < 0 || write(file, text, strlen(text)) < 0)
        say("cannot write " CONTROL "/%s: %s", name, strerror(errno));
    close(file);
}

static _Noreturn void end(int code, const char *problem)
{
    char text[40];
    snprintf(text, sizeof text, "%d%s\n", code, problem);
    mark("ended", text);
    exit(code);
}

/* O_NONBLOCK: to open a pipe that nobody reads would be to wait. */
static int open_stream(const char *path, int flags)
{
    flags |= O_NONBLOCK | O_NOCTTY | O_CLOEXEC;
    int file = open(path, flags, 0666);
    if (file < 0 && errno == ENOENT && flags & O_CREAT && *path == '/') {
        const char *name;
        int above = make_parent(path, false, &name);
        file = openat(above, name, flags, 0666);
        int why = errno;
        close(above);
        errno = why;
    }
    if (file >= 0)
        fcntl(file, F_SETFL, flags & O_APPEND);
    return file;
}

/* Makes stdout or stderr a file: the one that is asked for, else one for the log, which may be cut short from outside. */
static void redirect(int stream, const char *asked, const char *for_log)
{
    int file = open_stream(*asked ? asked : for_log, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND);
    if (file < 0) {
        int why = errno;
        if (stream == 2 && (file = open_stream(for_log, O_WRONLY | O_CREAT | O_APPEND)) >= 0)
            dup2(file, 2);
        say("cannot write %s: %s", *asked ? asked : for_log, strerror(why));
        end(1, "");
    }
    if (!*asked)
        fchmod(file, 0666);
    dup2(file, stream);
    close(file);
}

static void enter_workdir(const struct words *given)
{
    if (!*given->workdir)
        return;
    struct stat status;
    bool is_there = stat(given->workdir, &status) == 0 && S_ISDIR(status.st_mode);
    int folder = is_there ? -1 : make_folder(given->workdir, false);
    if (!is_there && folder < 0)
        end(1, " workdir");
    close(folder);
    if (chdir(given->workdir)) {
        say("cannot enter the working directory %s: %s", given->workdir, strerror(errno));
        end(1, "");
    }
}

static int open_stdin(const struct words *given)
{
    struct stat status;
    int file = open_stream(*given->in ? given->in : "/dev/null", O_RDONLY);
    if (file >= 0 && fstat(file, &status) == 0 && S_ISDIR(status.st_mode)) {
        errno = EISDIR;
        file = -1;
    }
    if (file < 0) {
        say("cannot read %s for stdin: %s", *given->in ? given->in : "/dev/null", strerror(errno));
        end(1, "");
    }
    return file;
}

static void set_variables(const struct words *given)
{
    for (int n = 0; n < given->count; n++)
        if (given->copies[n][0] == 'e')
            putenv(given->copies[n] + 1);
}

/* Signals the program and all that it has started: as the first process of the container, all that run there. */
static void signal_all(pid_t program, int number)
{
    kill(getpid() == 1 ? -1 : -program, number);
}

static void terminate(pid_t program)
{
    signal_all(program, SIGTERM);
    mark("terminated", "");
}

static void obey(enum order order, pid_t program)
{
    if (order == TERMINATE)
        terminate(program);
    if (order == KILL || order == FORSAKEN)
        signal_all(program, SIGKILL);
    if (order == FORSAKEN)
        end(128 + SIGKILL, "");
}

/* Waits for the program's end and gives its exit code. Reaps what else ends. A signal from outside the container is the
   engine's wish that it should end, whichever the image has named for that; one from inside is meant for the program. */
static int wait_for(pid_t program, int signals, int turn)
{
    struct pollfd both[] = {{signals, POLLIN, 0}, {turn, POLLIN, 0}};
    for (;;) {
        struct signalfd_siginfo signal;
        int status, code = -1;
        if (poll(both, 2, -1) < 0)
            continue;
        if (both[1].revents)
            obey(next_order(turn), program);
        if (!both[0].revents || read(signals, &signal, sizeof signal) < 0)
            continue;
        if (signal.ssi_signo == SIGCHLD) {
            for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;)
                if (pid == program)
                    code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
            if (code >= 0)
                return code;
        } else if ((pid_t)signal.ssi_pid == getppid())
            terminate(program);
        else
            kill(program, signal.ssi_signo);
    }
}

/* True when the kernel has killed something in this container for want of memory. */
static bool has_run_out_of_memory(void)
{
    static const char *const files[] = {
        "/sys/fs/cgroup/memory.events",             /* cgroup v2 */
        "/sys/fs/cgroup/memory/memory.oom_control", /* cgroup v1 */
    };
    for (int n = 0; n < 2; n++) {
        char text[1024] = "\n", *line;
        int file = open(files[n], O_RDONLY | O_CLOEXEC);
        if (file < 0)
            continue;
        bool is = read(file, text + 1, sizeof text - 2) > 0 && (line = strstr(text, "\noom_kill "))
            && strtoul(line + strlen("\noom_kill "), NULL, 10) > 0;
        close(file);
        if (is)
            return true;
    }
    return false;
}

_Noreturn void run(const struct words *given, bool waits)
{
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, NULL); /* taken by signalfd; this is what reaches a container's first process */
    int signals = signalfd(-1, &all, SFD_CLOEXEC);
    prctl(PR_SET_CHILD_SUBREAPER, 1);     /* where this is not that */
    setlocale(LC_CTYPE, "C.UTF-8");       /* a question mark in a pattern is one character */

    control = open(CONTROL, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int turn = waits ? await_turn(control, signals) : -1;
    redirect(2, given->err, CONTROL "/stderr");
    redirect(1, given->out, CONTROL "/stdout");
    enter_workdir(given);
    if (!copy_in(given) && waits)
        end(1, " copies"); /* nobody has looked at the image: what it lacks shows here */
    set_variables(given);
    int in = open_stdin(given);
    mark("started", "");
    pid_t program = fork();
    if (program == 0)
        become(given->program, in);
    if (program < 0) {
        say("cannot start the program: %s", strerror(errno));
        end(126, "");
    }
    close(in);
    int code = wait_for(program, signals, turn);
    signal_all(program, SIGKILL); /* its end is the container's: what it has left behind no longer writes to its outputs */
    if (!copy_out(given) && code == 0)
        code = 1;
    if (has_run_out_of_memory())
        mark("oom", "");
    end(code, "");
}

