#define _GNU_SOURCE
#include "files.h"
#include "shim.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define USUAL_PATH "/usr/local/bin:/usr/bin:/bin"

/* The file that execvp(3) takes for a name: the first on the PATH that can be executed, else the first there is. */
static const char *search(const char *name)
{
    static char candidate[PATH_MAX], first[PATH_MAX];
    const char *path = getenv("PATH");
    path = path && *path ? path : USUAL_PATH;
    for (size_t length;; path += length + 1) {
        struct stat status;
        length = strcspn(path, ":");
        snprintf(candidate, sizeof candidate, "%.*s/%s", length ? (int)length : 1, length ? path : ".", name);
        if (stat(candidate, &status) == 0 && S_ISREG(status.st_mode)) {
            if (access(candidate, X_OK) == 0)
                return candidate;
            if (!*first)
                strcpy(first, candidate);
        }
        if (!path[length])
            return *first ? first : NULL;
    }
}

static const char *find(const char *name)
{
    struct stat status;
    const char *found = strchr(name, '/') ? name : search(name);
    int code = 126;
    if (!found)
        code = 127, say("%s: no such program on the image's PATH", name);
    else if (stat(found, &status))
        code = 127, say("%s: no such program in the image", found);
    else if (S_ISDIR(status.st_mode))
        say("%s: is a directory, not a program", found);
    else if (access(found, X_OK))
        say("%s: not executable by user %d", found, (int)geteuid());
    else
        return found;
    _exit(code);
}

static bool is_binary(const char *path)
{
    char head[4] = "";
    int file = open(path, O_RDONLY | O_CLOEXEC);
    bool is = file < 0 || (read(file, head, 4) == 4 && !memcmp(head, "\177ELF", 4));
    close(file);
    return is;
}

/* Becomes the program, as the first of a session of its own, which it would be without a shim. */
_Noreturn void become(char **words, int in)
{
    sigset_t none;
    setsid();
    for (int number = 1; number < NSIG; number++)
        signal(number, SIG_DFL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    dup2(in, 0);
    const char *program = find(words[0]);
    execv(program, words);
    if (errno == ENOEXEC && !is_binary(program)) { /* a script without #!, which execvp(3) gives to the shell */
        int count = 0;
        while (words[count])
            count++;
        char *shell[count + 2];
        memcpy(shell + 1, words, (count + 1) * sizeof *words);
        shell[0] = "/bin/sh";
        shell[1] = (char *)program;
        execv(shell[0], shell);
        say("%s: a script that names no interpreter, and /bin/sh cannot run it: %s", program, strerror(errno));
        _exit(126);
    }
    switch (errno) {
    case ENOENT:
        say("%s: the image lacks the interpreter or dynamic loader that it names", program);
        _exit(127);
    case ENOEXEC:
        say("%s: not made for this machine's processor", program);
        break;
    default:
        say("%s: cannot be executed: %s", program, strerror(errno));
    }
    _exit(126);
}
