#define _GNU_SOURCE
#include "files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MOST_LINES = 100, FOLDER = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC };

void say(const char *format, ...)
{
    char line[2 * PATH_MAX] = "tesk: ";
    va_list values;
    va_start(values, format);
    vsnprintf(line + 6, sizeof line - 7, format, values);
    va_end(values);
    strcat(line, "\n");
    if (write(2, line, strlen(line)) < 0)
        return; /* there is nobody else to tell */
}

/* Says that something could not be done to an entry of a folder, and why, unless that was said of many already; false,
   so that callers return it. */
static bool failed(const char *what, int folder, const char *name)
{
    static int count;
    int why = errno;
    char link[40], path[PATH_MAX] = "";
    snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
    if (*name == '/' || readlink(link, path, sizeof path - 1) < 0 || !strcmp(path, "/"))
        *path = 0;
    if (++count <= MOST_LINES)
        say("cannot %s %s%s%s: %s", what, path, *name == '/' ? "" : "/", name, strerror(why));
    return false;
}

/* The next name in a folder but "." and ".."; NULL at its end. */
static const char *next(DIR *entries)
{
    struct dirent *entry;
    while ((entry = readdir(entries)))
        if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
            return entry->d_name;
    return NULL;
}

/* The entries of an open folder, from the first on; `folder` stays open. */
static DIR *entries_of(int folder)
{
    int again = openat(folder, ".", FOLDER);
    return again < 0 ? NULL : fdopendir(again);
}

/* Opens an entry, also one that its owner, who runs this, has closed to itself. */
static int open_closed(int folder, const char *name, int flags, mode_t needed)
{
    struct stat status;
    int opened = openat(folder, name, flags);
    if (opened >= 0 || errno != EACCES || fstatat(folder, name, &status, AT_SYMLINK_NOFOLLOW))
        return opened;
    if (fchmodat(folder, name, (status.st_mode & 07777) | needed, AT_SYMLINK_NOFOLLOW)) {
        errno = EACCES;
        return -1;
    }
    return openat(folder, name, flags);
}

int make_folder(const char *path, bool shared)
{
    char name[NAME_MAX + 1];
    int folder = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    while (folder >= 0 && *(path += strspn(path, "/"))) {
        size_t length = strcspn(path, "/");
        int why = ENAMETOOLONG, below = -1;
        if (length <= NAME_MAX) {
            memcpy(name, path, length);
            name[length] = 0;
            why = mkdirat(folder, name, 0777) ? errno : 0;
            if (!why && shared)
                fchmodat(folder, name, 0777, 0);
            below = openat(folder, name, O_PATH | O_DIRECTORY | O_CLOEXEC);
            if (below < 0 && errno != ENOENT)
                why = errno;
        }
        close(folder);
        errno = why;
        folder = below;
        path += length;
    }
    return folder;
}

int make_parent(const char *path, bool shared, const char **name)
{
    char above[PATH_MAX];
    size_t length = strrchr(path, '/') - path;
    *name = path + length + 1;
    if (length >= sizeof above) {
        errno = ENAMETOOLONG;
        return -1;
    }
    memcpy(above, path, length);
    above[length] = 0;
    return make_folder(above, shared);
}

/* The files with several names that this copy has met, and where the copy of each lies. */
static struct copied {
    dev_t device;
    ino_t inode;
    char *path;
    struct copied *before;
} *copied;

/* Gives the copy of such a file one more name, if it was copied before; else remembers that it is copied now. */
static bool link_copied(const struct stat *source, int to, const char *as)
{
    char link[40], path[PATH_MAX];
    for (struct copied *each = copied; each; each = each->before)
        if (each->device == source->st_dev && each->inode == source->st_ino)
            return linkat(AT_FDCWD, each->path, to, as, 0) == 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", to);
    ssize_t length = readlink(link, path, sizeof path - strlen(as) - 2);
    struct copied *first = length < 0 ? NULL : malloc(sizeof *first);
    if (first) {
        sprintf(path + length, "/%s", as);
        *first = (struct copied){source->st_dev, source->st_ino, strdup(path), copied};
        copied = first;
    }
    return false;
}

/* Owner, mode and times. Where this user may not give the owner, the set-id bits would mean another one and go too. */
static bool keep_attributes(int to, const char *as, const struct stat *source)
{
    mode_t mode = source->st_mode & 07777;
    if (fchownat(to, as, source->st_uid, source->st_gid, AT_SYMLINK_NOFOLLOW))
        mode &= 01777;
    if (!S_ISLNK(source->st_mode) && fchmodat(to, as, mode, AT_SYMLINK_NOFOLLOW))
        return false;
    const struct timespec times[] = {source->st_atim, source->st_mtim};
    return utimensat(to, as, times, AT_SYMLINK_NOFOLLOW) == 0;
}

/* Copies what a file holds and leaves its holes out. */
static bool copy_data(int in, int out, off_t size)
{
    static char buffer[1 << 17];
    for (off_t at = 0; at < size;) {
        off_t data = lseek(in, at, SEEK_DATA), end;
        if (data < 0 && errno == ENXIO)
            break; /* nothing but a hole follows */
        at = data < 0 ? at : data;
        if ((end = lseek(in, at, SEEK_HOLE)) <= at)
            end = size;
        while (at < end) {
            ssize_t count = pread(in, buffer, sizeof buffer, at);
            if (count <= 0)
                return count == 0;
            for (ssize_t done = 0, now; done < count; done += now)
                if ((now = pwrite(out, buffer + done, count - done, at + done)) < 0)
                    return false;
            at += count;
        }
    }
    return ftruncate(out, size) == 0;
}

/* What cannot be replaced, as a file that is mounted alone, is written in its place and keeps its own attributes. */
static bool copy_file(int from, const char *name, int to, const char *as)
{
    struct stat source;
    int in = open_closed(from, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0400);
    if (in < 0)
        return failed("read", from, name);
    int out = openat(to, as, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600);
    bool done = out >= 0 && fstat(in, &source) == 0 && copy_data(in, out, source.st_size);
    if (!done)
        failed("write", to, as);
    close(in);
    if (out >= 0)
        close(out);
    return done;
}

static bool copy_link(int from, const char *name, int to, const char *as)
{
    char target[PATH_MAX];
    ssize_t length = readlinkat(from, name, target, sizeof target - 1);
    if (length < 0)
        return failed("read", from, name);
    target[length] = 0;
    return symlinkat(target, to, as) == 0 || failed("write", to, as);
}

static bool copy_entry(int from, const char *name, int to, const char *as);

/* A folder that was there keeps its own attributes. */
static bool copy_folder(int from, const char *name, int to, const char *as, const struct stat *source)
{
    bool is_new = mkdirat(to, as, 0700) == 0;
    int below = openat(to, as, O_RDONLY | O_DIRECTORY | O_CLOEXEC); /* it may be a link in the image to a folder */
    if (below < 0 && errno == ENOTDIR && unlinkat(to, as, 0) == 0 && (is_new = mkdirat(to, as, 0700) == 0))
        below = openat(to, as, FOLDER);
    if (below < 0)
        return failed("write", to, as);
    int inside = open_closed(from, name, FOLDER, 0500);
    DIR *entries = inside < 0 ? NULL : fdopendir(inside);
    bool done = entries || failed("read", from, name);
    for (const char *entry; entries && (entry = next(entries));)
        done &= copy_entry(inside, entry, below, entry);
    if (entries)
        closedir(entries);
    close(below);
    return done && (!is_new || keep_attributes(to, as, source) || failed("write", to, as));
}

/* True for a file that is this process' stdout or stderr. */
static bool is_stream(int folder, const char *name)
{
    struct stat file, stream;
    if (fstatat(folder, name, &file, 0))
        return false;
    for (int n = 1; n <= 2; n++)
        if (fstat(n, &stream) == 0 && stream.st_dev == file.st_dev && stream.st_ino == file.st_ino)
            return true;
    return false;
}

static bool copy_entry(int from, const char *name, int to, const char *as)
{
    struct stat source;
    if (fstatat(from, name, &source, AT_SYMLINK_NOFOLLOW))
        return failed("read", from, name);
    if (S_ISDIR(source.st_mode))
        return copy_folder(from, name, to, as, &source);
    if (is_stream(to, as))
        return true;
    bool is_new = unlinkat(to, as, 0) == 0 || errno == ENOENT;
    if (!is_new && !S_ISREG(source.st_mode))
        return failed("replace", to, as);
    if (source.st_nlink > 1 && link_copied(&source, to, as))
        return true;
    if (S_ISREG(source.st_mode) ? !copy_file(from, name, to, as)
        : S_ISLNK(source.st_mode) ? !copy_link(from, name, to, as)
        : mknodat(to, as, source.st_mode, source.st_rdev) && !failed("write", to, as))
        return false;
    return !is_new || keep_attributes(to, as, &source) || failed("write", to, as);
}

bool copy(int from, const char *name, int to, const char *as)
{
    bool done = copy_entry(from, name, to, as);
    for (struct copied *before; copied; copied = before) {
        before = copied->before;
        free(copied->path);
        free(copied);
    }
    return done;
}

/* Removes an entry of `top`; of a folder that holds folders, brings those up into `top`. False when nothing came of it. */
static bool remove_or_lift(int top, const char *name)
{
    static unsigned count;
    char lifted[NAME_MAX + 1];
    bool done = false;
    if (unlinkat(top, name, 0) == 0 || (errno == EISDIR && unlinkat(top, name, AT_REMOVEDIR) == 0))
        return true;
    if (errno != ENOTEMPTY && errno != EEXIST)
        return false;
    fchmodat(top, name, 0700, AT_SYMLINK_NOFOLLOW); /* its owner may have closed it to itself */
    int folder = openat(top, name, FOLDER);
    DIR *entries = folder < 0 ? NULL : fdopendir(folder);
    for (const char *entry; entries && (entry = next(entries));) {
        if (unlinkat(folder, entry, 0) && unlinkat(folder, entry, AT_REMOVEDIR)) {
            fchmodat(folder, entry, 0700, AT_SYMLINK_NOFOLLOW);
            do
                snprintf(lifted, sizeof lifted, ".tesk.%u", count++);
            while (renameat(folder, entry, top, lifted) && (errno == ENOTEMPTY || errno == EEXIST || errno == ENOTDIR));
            if (faccessat(folder, entry, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
                continue;
        }
        done = true;
    }
    if (entries)
        closedir(entries);
    return unlinkat(top, name, AT_REMOVEDIR) == 0 || done;
}

bool is_empty(const char *path)
{
    DIR *entries = opendir(path);
    bool is = entries && !next(entries);
    if (entries)
        closedir(entries);
    return is;
}

bool empty(int folder)
{
    for (;;) {
        bool held = false, removed = false;
        char last[NAME_MAX + 1];
        DIR *entries = entries_of(folder);
        if (!entries)
            return failed("read", folder, ".");
        for (const char *entry; (entry = next(entries)); strcpy(last, entry)) {
            held = true;
            removed |= remove_or_lift(folder, entry);
        }
        int why = errno;
        closedir(entries);
        errno = why;
        if (!held)
            return true;
        if (!removed)
            return failed("remove", folder, last);
    }
}

bool remove_all(int folder, const char *name)
{
    if (unlinkat(folder, name, 0) == 0 || errno == ENOENT)
        return true;
    if (errno != EISDIR)
        return failed("remove", folder, name);
    fchmodat(folder, name, 0700, AT_SYMLINK_NOFOLLOW);
    int inside = openat(folder, name, FOLDER);
    if (inside < 0)
        return failed("read", folder, name);
    bool done = empty(inside);
    close(inside);
    return done && (unlinkat(folder, name, AT_REMOVEDIR) == 0 || failed("remove", folder, name));
}

bool open_up(int folder, const char *name, bool write)
{
    struct stat status;
    if (fstatat(folder, name, &status, AT_SYMLINK_NOFOLLOW))
        return failed("read", folder, name);
    if (S_ISLNK(status.st_mode) && (write || fstatat(folder, name, &status, 0) || S_ISDIR(status.st_mode)))
        return true; /* what only is to be read is read through links */
    if (!S_ISREG(status.st_mode) && !S_ISDIR(status.st_mode))
        return true;
    mode_t mode = (status.st_mode & 07777) | (write ? 0666 : 0444);
    if (S_ISDIR(status.st_mode) || (write && mode & 0111))
        mode |= 0111;
    bool done = mode == (status.st_mode & 07777) || fchmodat(folder, name, mode, write ? AT_SYMLINK_NOFOLLOW : 0) == 0
        || failed("make readable for everybody", folder, name);
    if (!S_ISDIR(status.st_mode))
        return done;
    int inside = openat(folder, name, FOLDER);
    DIR *entries = inside < 0 ? NULL : fdopendir(inside);
    if (!entries)
        return failed("read", folder, name);
    for (const char *entry; (entry = next(entries));)
        done &= open_up(inside, entry, write);
    closedir(entries);
    return done;
}

void take(int folder, const char *name)
{
    struct stat status;
    if (fstatat(folder, name, &status, AT_SYMLINK_NOFOLLOW))
        return;
    bool is_folder = S_ISDIR(status.st_mode), is_own = status.st_uid == geteuid();
    mode_t mode = status.st_mode & 07777;
    if ((is_folder || S_ISREG(status.st_mode)) && mode & 0002) {
        is_own |= geteuid() == 0 && fchownat(folder, name, 0, -1, AT_SYMLINK_NOFOLLOW) == 0;
        if (is_own && !is_folder)
            fchmodat(folder, name, mode & 01000 ? mode & 0700 : mode & ~022, AT_SYMLINK_NOFOLLOW);
    }
    int inside = is_folder ? openat(folder, name, FOLDER) : -1;
    DIR *entries = inside < 0 ? NULL : fdopendir(inside);
    for (const char *entry; entries && (entry = next(entries));)
        take(inside, entry);
    if (entries)
        closedir(entries);
}
