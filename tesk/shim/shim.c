/* What tesk runs inside a user's container, with nothing taken from the image.

     shim run WORKDIR STDIN STDOUT STDERR COPIES [COPY]... PROGRAM [ARGUMENT]...

   Runs one executor's program, which should not be able to tell: with the environment, limits and user of the container
   and the signal actions that a new process has. Empty WORKDIR and STDIN: the container's own; empty STDOUT and STDERR:
   kept for the log alone. COPY is "i/path" (merged into the container first), "o/pattern" (an output that lies outside
   every mount: out afterwards, in before), "r/pattern" (an output that is made readable for everybody afterwards),
   "t/path" (an input that becomes this user's own, where that is allowed) or "eNAME=VALUE" (a variable that the cluster
   does not take). Ends with the program's exit code, 128 + N after signal N;
   127 when there is no such program, 126 when it cannot be executed, 1 instead of 0 when an output could not be copied
   out. What happens shows in files of the control folder: `started`; `terminated` when it was told to end; `oom` when
   the kernel killed one of its processes; `ended` with the exit code and, when the program never ran since its working
   directory cannot be made, the word "workdir".

     shim wait WORKDIR ...          as `run`, but the program waits for its turn

   For an executor in the pod of a whole task, where all containers start at once. The shim makes a pipe `turn` in the
   control folder, which the task's runner holds open from then on. It says G: the program's turn has come. Then T: the
   program is to end, as by a TERM from outside; K: it is killed. The runner's end is seen as the pipe's end, and kills
   the program. Before its turn, these and a TERM from outside end the shim with 143. Where something cannot be copied in,
   or an output has no folder, the program does not run, and `ended` has the word "copies".

     shim look ANSWER PATH...       writes a digit for each path to a file: 1 where something is there, 2 more unless it
                                    is an empty folder, 4 more for a folder in which this user can make files
     shim copy-to FOLDER            puts this program into a folder
     shim open-up FOLDER...         lets every user read and write what folders hold
     shim empty FOLDER...           removes what folders hold

   Whatever it opens is closed to the program. The program may write to the control folder, so nothing that it puts
   there is followed or waited for. */

#define _GNU_SOURCE
#include "files.h"
#include "shim.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

__attribute__((used)) static const char source[] = "source " SOURCE; /* by this `build` tells what it was built of */

static bool copy_to(const char *folder)
{
    int target = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int self = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    static char data[1 << 21];
    ssize_t size = read(self, data, sizeof data);
    int file = openat(target, ".shim", O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0755);
    if (size > 0 && write(file, data, size) == size && fchmod(file, 0755) == 0 && close(file) == 0
        && renameat(target, ".shim", target, "shim") == 0)
        return true;
    say("cannot copy the shim to %s: %s", folder, strerror(errno));
    return false;
}

static int digit(const char *path)
{
    struct stat status;
    if (lstat(path, &status))
        return 0;
    if (stat(path, &status) || !S_ISDIR(status.st_mode))
        return 3;
    return (is_empty(path) ? 1 : 3) + (access(path, W_OK | X_OK) ? 0 : 4);
}

static bool look(const char *answer, char **paths)
{
    char draft[PATH_MAX];
    snprintf(draft, sizeof draft, "%s.new", answer);
    FILE *file = fopen(draft, "we");
    for (; file && *paths; paths++)
        fprintf(file, "%d", digit(*paths));
    if (file && fputs("\n", file) >= 0 && fclose(file) == 0 && rename(draft, answer) == 0)
        return true;
    say("cannot write %s: %s", answer, strerror(errno));
    return false;
}

static bool empty_folder(const char *path)
{
    int folder = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    bool done = folder < 0 ? errno == ENOENT : empty(folder);
    if (!done)
        say("%s cannot be emptied", path);
    close(folder);
    return done;
}

static bool open_folder_up(const char *path)
{
    open_up(AT_FDCWD, path, true);
    return true; /* what stays closed, the filer names */
}

int main(int argc, char **argv)
{
    bool waits = argc > 1 && !strcmp(argv[1], "wait");
    if (argc > 7 && (waits || !strcmp(argv[1], "run"))) {
        int count = atoi(argv[6]);
        if (count >= 0 && count < argc - 7) {
            char **copies = argv + 7;
            run(&(struct words){argv[2], argv[3], argv[4], argv[5], count, copies, copies + count}, waits);
        }
    }
    if (argc > 3 && !strcmp(argv[1], "look"))
        return look(argv[2], argv + 3) ? 0 : 1;
    bool (*act)(const char *) = argc < 3 ? NULL
        : !strcmp(argv[1], "copy-to") ? copy_to
        : !strcmp(argv[1], "open-up") ? open_folder_up
        : !strcmp(argv[1], "empty") ? empty_folder : NULL;
    if (!act) {
        say("usage: run|wait WORKDIR STDIN STDOUT STDERR COPIES [COPY]... PROGRAM [ARGUMENT]... | "
            "look ANSWER PATH... | copy-to FOLDER | open-up FOLDER... | empty FOLDER...");
        return 2;
    }
    bool done = true;
    for (int n = 2; n < argc; n++)
        done &= act(argv[n]);
    return done ? 0 : 1;
}
