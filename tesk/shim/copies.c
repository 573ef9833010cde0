#define _GNU_SOURCE
#include "files.h"
#include "shim.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Does something for every path that a pattern (POSIX 2.13) matches; one that matches nothing is itself a path. */
static bool for_each(const char *pattern, bool (*act)(const char *path))
{
    glob_t found;
    struct stat status;
    bool done = true;
    switch (glob(pattern, 0, NULL, &found)) {
    case 0:
        for (size_t n = 0; n < found.gl_pathc; n++)
            done &= act(found.gl_pathv[n]);
        globfree(&found);
        return done;
    case GLOB_NOMATCH:
        return lstat(pattern, &status) || act(pattern);
    default:
        say("cannot look for %s: %s", pattern, strerror(errno));
        return false;
    }
}

static bool is_dots(const char *path) /* as of the pattern "/.*" */
{
    const char *name = strrchr(path, '/') + 1;
    return !strcmp(name, ".") || !strcmp(name, "..");
}

static bool copy_path(const char *from, const char *to, bool anew)
{
    const char *as;
    int target = make_parent(to, anew, &as);
    as = *as ? as : "."; /* what is merged into "/" */
    bool done = target >= 0 && (!anew || remove_all(target, as)) && copy(AT_FDCWD, from, target, as);
    if (!done) {
        say("could not copy %s to %s", from, to);
        if (anew && target >= 0)
            remove_all(target, as); /* half a file is no output */
    } else if (anew)
        open_up(target, as, false);
    close(target);
    return done;
}

static bool bring_in(const char *kept)
{
    const char *path = kept + strlen(KEPT);
    return is_dots(path) || copy_path(kept, path, false);
}

static bool take_out(const char *path)
{
    char kept[PATH_MAX];
    if (is_dots(path) || !strcmp(path, OURS) || !strncmp(path, OURS "/", strlen(OURS "/")))
        return true;
    if (snprintf(kept, sizeof kept, KEPT "%s", path) < (int)sizeof kept)
        return copy_path(path, kept, true);
    say("could not copy %s: its name is too long", path);
    return false;
}

/* Makes an output readable, and the folders above it as far as its mount reaches: nobody else looks at the others. */
static bool make_readable(const char *path)
{
    char above[PATH_MAX];
    struct stat file, folder;
    if (!realpath(path, above) || stat(above, &file))
        return true; /* a link to nothing */
    bool done = open_up(AT_FDCWD, above, false);
    for (char *cut; (cut = strrchr(above, '/')) && cut > above;) {
        *cut = 0;
        if (stat(above, &folder) || folder.st_dev != file.st_dev)
            break;
        if ((folder.st_mode & 0555) != 0555 && chmod(above, (folder.st_mode & 07777) | 0555))
            done = false;
    }
    if (!done)
        say("%s is closed to other users and not user %d's to open, so it may not arrive as an output; let the program "
            "make it readable (chmod -R a+rX), or run the image as root", path, (int)geteuid());
    return true;
}

static bool make_folder_of(const char *path)
{
    const char *name;
    int folder = make_parent(path, false, &name);
    if (folder < 0)
        say("could not make the folder of %s: %s", path, strerror(errno));
    close(folder);
    return folder >= 0;
}

bool copy_in(const struct words *given)
{
    bool done = true;
    char kept[PATH_MAX];
    struct stat status;
    for (int n = 0; n < given->count; n++) {
        const char *path = given->copies[n] + 1;
        if (snprintf(kept, sizeof kept, KEPT "%s", path) >= (int)sizeof kept)
            continue;
        if (given->copies[n][0] == 'i' && stat(kept, &status) == 0)
            done &= copy_path(kept, path, false);
        if (given->copies[n][0] == 't')
            take(AT_FDCWD, path);
        if (given->copies[n][0] == 'o')
            done &= make_folder_of(path) && for_each(kept, bring_in);
    }
    return done;
}

bool copy_out(const struct words *given)
{
    bool done = true;
    for (int n = 0; n < given->count; n++) {
        if (given->copies[n][0] == 'o')
            done &= for_each(given->copies[n] + 1, take_out);
        if (given->copies[n][0] == 'r')
            for_each(given->copies[n] + 1, make_readable);
    }
    return done;
}
