/* Kills the process at its n-th write to a file: half of what was to be written is written, then SIGKILL.
   Preloaded into a server by crash.rs. DIE_AT is n; DIE_COUNT names a file that gets the number of writes at a clean end. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

static atomic_long writes;

/* Whether this is the last write. Sockets, pipes and terminals do not count. */
static int last(int fd) {
  struct stat info;
  const char *at = getenv("DIE_AT");
  if (fd >= 0 && (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode))) return 0;
  return atomic_fetch_add(&writes, 1) + 1 == (at ? atol(at) : -1);
}

static void die(void) {
  kill(getpid(), SIGKILL);
  for (;;) pause();
}

__attribute__((destructor)) static void tell(void) {
  const char *path = getenv("DIE_COUNT");
  FILE *file = path ? fopen(path, "w") : NULL;
  if (file) { fprintf(file, "%ld", (long)writes); fclose(file); }
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t write(int fd, const void *data, size_t n) {
  if (last(fd)) { REAL(write)(fd, data, n / 2); die(); }
  return REAL(write)(fd, data, n);
}
ssize_t pwrite(int fd, const void *data, size_t n, off_t at) {
  if (last(fd)) { REAL(pwrite)(fd, data, n / 2, at); die(); }
  return REAL(pwrite)(fd, data, n, at);
}
ssize_t pwrite64(int fd, const void *data, size_t n, off64_t at) {
  if (last(fd)) { REAL(pwrite64)(fd, data, n / 2, at); die(); }
  return REAL(pwrite64)(fd, data, n, at);
}
int fsync(int fd) { if (last(fd)) die(); return REAL(fsync)(fd); }
int fdatasync(int fd) { if (last(fd)) die(); return REAL(fdatasync)(fd); }
int ftruncate(int fd, off_t n) { if (last(fd)) die(); return REAL(ftruncate)(fd, n); }
int ftruncate64(int fd, off64_t n) { if (last(fd)) die(); return REAL(ftruncate64)(fd, n); }
int rename(const char *a, const char *b) { if (last(-1)) die(); return REAL(rename)(a, b); }
int link(const char *a, const char *b) { if (last(-1)) die(); return REAL(link)(a, b); }
int unlink(const char *a) { if (last(-1)) die(); return REAL(unlink)(a); }
