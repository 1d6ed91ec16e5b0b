/*
 * Runs a program for FreeBSD on Linux, as far as a smoke test needs it: a dynamically linked one for amd64, whose calls of the C
 * library are answered by glibc's. Numbers and structures are translated where the two systems differ. What is not here ends the program
 * with the name of the call: there are no sockets, no events, no signals, no other processes, nothing of FreeBSD's kernel. So what passes here
 * shows that the program's own code works as it was compiled, and nothing of how FreeBSD would answer it.
 *
 * gcc -O1 -o loader loader.c -pthread && ./loader PROGRAM [ARGUMENTS]
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <link.h>
#include <linux/futex.h>
#include <linux/openat2.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

/*
 * The program expects its thread-local variables directly below the thread pointer. Those of the main program lie there, and this is
 * the only one of ours: the program gets the upper end of it, and the lower end has its error number.
 */
#define ROOM (256 * 1024)
static __thread char room[ROOM] __attribute__((aligned(64)));

static struct {
	char *base;
	const Elf64_Phdr *headers;
	int headers_len;
	const Elf64_Dyn *dynamic;
	const char *locals;
	size_t locals_len, locals_size;
	char ***environment;
} program;

static int *bsd___error(void) { return (int *)room; }

static void give_locals(void) { memcpy(room + ROOM - program.locals_size, program.locals, program.locals_len); }

static void die(const char *what, const char *name) {
	fprintf(stderr, "loader: %s%s\n", what, name);
	_exit(97);
}

/* ---- error numbers: up to 34 they are the same but for two */

static int error_of(int linux_error) {
	static const int others[][2] = {
		{EAGAIN, 35}, {EINPROGRESS, 36}, {EALREADY, 37}, {ENOTSOCK, 38}, {EOPNOTSUPP, 45}, {ETIMEDOUT, 60}, {ELOOP, 62},
		{ENAMETOOLONG, 63}, {ENOTEMPTY, 66}, {EDQUOT, 69}, {ESTALE, 70}, {ENOLCK, 77}, {ENOSYS, 78}, {EOVERFLOW, 84},
		{ECANCELED, 85}, {EILSEQ, 86}, {EDEADLK, 11},
	};
	for (size_t i = 0; i < sizeof others / sizeof *others; i++)
		if (others[i][0] == linux_error)
			return others[i][1];
	return linux_error <= ERANGE ? linux_error : EIO;
}

static long told(long result) {
	if (result == -1)
		*bsd___error() = error_of(errno);
	return result;
}

static int refused(int bsd_error) {
	*bsd___error() = bsd_error;
	return -1;
}

/* ---- files */

static int open_flags(int bsd) {
	static const int flags[][2] = {
		{0x4, O_NONBLOCK}, {0x8, O_APPEND}, {0x80, O_SYNC}, {0x100, O_NOFOLLOW}, {0x200, O_CREAT}, {0x400, O_TRUNC},
		{0x800, O_EXCL}, {0x8000, O_NOCTTY}, {0x20000, O_DIRECTORY}, {0x100000, O_CLOEXEC},
	};
	int linux_flags = bsd & O_ACCMODE;
	for (size_t i = 0; i < sizeof flags / sizeof *flags; i++)
		if (bsd & flags[i][0])
			linux_flags |= flags[i][1];
	return linux_flags;
}

static int folder_of(int bsd) { return bsd == -100 ? AT_FDCWD : bsd; }

static int at_flags(int bsd) { return (bsd & 0x200 ? AT_SYMLINK_NOFOLLOW : 0) | (bsd & 0x800 ? AT_REMOVEDIR : 0); }

static int bsd_open(const char *path, int flags, int mode) { return told(open(path, open_flags(flags), mode)); }

/* What O_RESOLVE_BENEATH asks for is what capability mode has for all paths; Linux has it by another name, with another error. */
static int bsd_openat(int folder, const char *path, int flags, int mode) {
	struct open_how how = {.flags = open_flags(flags), .mode = flags & 0x200 ? mode : 0};
	if (flags & 0x800000)
		how.resolve = RESOLVE_BENEATH;
	long fd = syscall(SYS_openat2, folder_of(folder), path, &how, sizeof how);
	return fd == -1 && errno == EXDEV ? refused(93) : told(fd);
}

static int bsd_unlinkat(int folder, const char *path, int flags) {
	return told(unlinkat(folder_of(folder), path, at_flags(flags)));
}

static int bsd_renameat(int from, const char *old, int to, const char *new) {
	return told(renameat(folder_of(from), old, folder_of(to), new));
}

static int bsd_fcntl(int fd, int command, long argument) {
	int flags;
	switch (command) {
	case 0: return told(fcntl(fd, F_DUPFD, argument));
	case 1: return told(fcntl(fd, F_GETFD));
	case 2: return told(fcntl(fd, F_SETFD, argument));
	case 3:
		flags = told(fcntl(fd, F_GETFL));
		return flags < 0 ? flags : (flags & O_ACCMODE) | (flags & O_NONBLOCK ? 0x4 : 0) | (flags & O_APPEND ? 0x8 : 0);
	case 17: return told(fcntl(fd, F_DUPFD_CLOEXEC, argument));
	}
	return refused(EINVAL);
}

struct bsd_stat {
	uint64_t dev, ino, nlink;
	uint16_t mode, pad0;
	uint32_t uid, gid, pad1;
	uint64_t rdev;
	struct timespec accessed, modified, changed, born;
	int64_t size, blocks;
	int32_t block_size;
	uint32_t flags;
	uint64_t generation, spare[10];
};

static int give_stat(int result, const struct stat *from, struct bsd_stat *to) {
	if (result != 0)
		return told(result);
	*to = (struct bsd_stat){
		.dev = from->st_dev, .ino = from->st_ino, .nlink = from->st_nlink, .mode = from->st_mode, .uid = from->st_uid,
		.gid = from->st_gid, .rdev = from->st_rdev, .accessed = from->st_atim, .modified = from->st_mtim,
		.changed = from->st_ctim, .size = from->st_size, .blocks = from->st_blocks, .block_size = from->st_blksize,
	};
	return 0;
}

static int bsd_stat(const char *path, struct bsd_stat *to) {
	struct stat from;
	return give_stat(stat(path, &from), &from, to);
}

static int bsd_lstat(const char *path, struct bsd_stat *to) {
	struct stat from;
	return give_stat(lstat(path, &from), &from, to);
}

static int bsd_fstat(int fd, struct bsd_stat *to) {
	struct stat from;
	return give_stat(fstat(fd, &from), &from, to);
}

static int bsd_fstatat(int folder, const char *path, struct bsd_stat *to, int flags) {
	struct stat from;
	return give_stat(fstatat(folder_of(folder), path, &from, at_flags(flags)), &from, to);
}

struct bsd_entry {
	uint64_t ino, offset;
	uint16_t length;
	uint8_t type, pad0;
	uint16_t name_len, pad1;
	char name[256];
};

struct bsd_folder {
	DIR *folder;
	struct bsd_entry entry;
};

static struct bsd_folder *new_folder(DIR *opened) {
	if (opened == NULL) {
		told(-1);
		return NULL;
	}
	struct bsd_folder *folder = calloc(1, sizeof *folder);
	folder->folder = opened;
	return folder;
}

static struct bsd_folder *bsd_opendir(const char *path) { return new_folder(opendir(path)); }
static struct bsd_folder *bsd_fdopendir(int fd) { return new_folder(fdopendir(fd)); }
static int bsd_dirfd(struct bsd_folder *folder) { return dirfd(folder->folder); }

static int bsd_closedir(struct bsd_folder *folder) {
	int result = told(closedir(folder->folder));
	free(folder);
	return result;
}

static struct bsd_entry *bsd_readdir(struct bsd_folder *folder) {
	errno = 0;
	struct dirent *found = readdir(folder->folder);
	if (found == NULL) {
		*bsd___error() = errno == 0 ? 0 : error_of(errno);
		return NULL;
	}
	struct bsd_entry *entry = &folder->entry;
	entry->ino = found->d_ino;
	entry->type = found->d_type;
	entry->name_len = strlen(found->d_name);
	entry->length = sizeof *entry;
	memcpy(entry->name, found->d_name, entry->name_len + 1);
	return entry;
}

#define SAME(name, parameters, arguments) \
	static long bsd_##name parameters { return told(name arguments); }
SAME(read, (int fd, void *to, size_t len), (fd, to, len))
SAME(write, (int fd, const void *from, size_t len), (fd, from, len))
SAME(pread, (int fd, void *to, size_t len, off_t at), (fd, to, len, at))
SAME(pwrite, (int fd, const void *from, size_t len, off_t at), (fd, from, len, at))
SAME(readv, (int fd, const struct iovec *to, int count), (fd, to, count))
SAME(writev, (int fd, const struct iovec *from, int count), (fd, from, count))
SAME(lseek, (int fd, off_t by, int from), (fd, by, from))
SAME(close, (int fd), (fd))
SAME(fsync, (int fd), (fd))
SAME(fdatasync, (int fd), (fd))
SAME(ftruncate, (int fd, off_t size), (fd, size))
SAME(flock, (int fd, int how), (fd, how))
SAME(unlink, (const char *path), (path))
SAME(rmdir, (const char *path), (path))
SAME(mkdir, (const char *path, mode_t mode), (path, mode))
SAME(access, (const char *path, int mode), (path, mode))
SAME(chmod, (const char *path, mode_t mode), (path, mode))
SAME(rename, (const char *old, const char *new), (old, new))
SAME(symlink, (const char *target, const char *path), (target, path))
SAME(readlink, (const char *path, char *to, size_t len), (path, to, len))
SAME(munmap, (void *at, size_t len), (at, len))
SAME(mprotect, (void *at, size_t len, int allowed), (at, len, allowed))
SAME(poll, (struct pollfd *fds, nfds_t count, int timeout), (fds, count, timeout))
SAME(nanosleep, (const struct timespec *time, struct timespec *left), (time, left))

static char *bsd_getcwd(char *to, size_t len) {
	char *path = getcwd(to, len);
	if (path == NULL)
		told(-1);
	return path;
}

static char *bsd_realpath(const char *path, char *to) {
	char *real = realpath(path, to);
	if (real == NULL)
		told(-1);
	return real;
}

/* ---- memory, time, the host */

static void *bsd_mmap(void *at, size_t len, int allowed, int flags, int fd, off_t offset) {
	int linux_flags = flags & (MAP_SHARED | MAP_PRIVATE | MAP_FIXED);
	if (flags & 0x1000)
		linux_flags |= MAP_ANONYMOUS;
	/* A guard: nobody reads or writes there. */
	if (flags & 0x2000) {
		linux_flags |= MAP_ANONYMOUS | MAP_PRIVATE;
		allowed = PROT_NONE;
	}
	return (void *)told((long)mmap(at, len, allowed, linux_flags, fd, offset));
}

static clockid_t clock_of(int bsd) {
	switch (bsd) {
	case 0: case 9: case 10: case 13: return CLOCK_REALTIME;
	case 14: return CLOCK_THREAD_CPUTIME_ID;
	case 2: case 15: return CLOCK_PROCESS_CPUTIME_ID;
	}
	return CLOCK_MONOTONIC;
}

static int bsd_clock_gettime(int clock, struct timespec *to) { return told(clock_gettime(clock_of(clock), to)); }

static int bsd_clock_nanosleep(int clock, int flags, const struct timespec *time, struct timespec *left) {
	return error_of(clock_nanosleep(clock_of(clock), flags, time, left));
}

static long bsd_sysconf(int name) {
	switch (name) {
	case 47: return sysconf(_SC_PAGESIZE);
	case 57: case 58: return sysconf(_SC_NPROCESSORS_ONLN);
	case 70: case 71: return 4096;
	}
	return refused(EINVAL);
}

static int bsd_cpuset_getaffinity(int level, int which, int64_t id, size_t len, uint8_t *set) {
	(void)level, (void)which, (void)id;
	memset(set, 0, len);
	for (long cpu = 0; cpu < sysconf(_SC_NPROCESSORS_ONLN) && cpu < (long)len * 8; cpu++)
		set[cpu / 8] |= 1 << cpu % 8;
	return 0;
}

static int bsd_getrlimit(int resource, struct rlimit *to) {
	return resource == 8 ? told(getrlimit(RLIMIT_NOFILE, to)) : refused(EINVAL);
}

static int bsd_setrlimit(int resource, const struct rlimit *from) {
	return resource == 8 ? told(setrlimit(RLIMIT_NOFILE, from)) : refused(EINVAL);
}

static int bsd_sysctl(void) { return refused(ENOENT); }

static void bsd_arc4random_buf(char *to, size_t len) {
	while (len > 0) {
		ssize_t got = getrandom(to, len < 256 ? len : 256, 0);
		if (got > 0)
			to += got, len -= got;
	}
}

static int bsd_strerror_r(int error, char *to, size_t len) {
	snprintf(to, len, "error %d of FreeBSD", error);
	return 0;
}

/* ---- signals: none comes */

static int bsd_sigaction(int number, const void *new, void *old) {
	(void)number, (void)new;
	if (old != NULL)
		memset(old, 0, 32);
	return 0;
}

static int bsd_sigaltstack(const void *new, char *old) {
	(void)new;
	/* There is no other stack. */
	if (old != NULL)
		memset(old, 0, 24), *(int *)(old + 16) = 4;
	return 0;
}

static void *bsd_signal(int number, void *handler) {
	(void)number, (void)handler;
	return NULL;
}

/* ---- threads: what is a structure with glibc is a pointer to one with FreeBSD */

struct begin {
	void *(*run)(void *);
	void *with;
};

static void *thread(void *given) {
	struct begin begin = *(struct begin *)given;
	free(given);
	give_locals();
	return begin.run(begin.with);
}

static int bsd_pthread_create(pthread_t *to, pthread_attr_t **attributes, void *(*run)(void *), void *with) {
	struct begin *begin = malloc(sizeof *begin);
	*begin = (struct begin){run, with};
	return error_of(pthread_create(to, attributes != NULL ? *attributes : NULL, thread, begin));
}

static int bsd_pthread_attr_init(pthread_attr_t **attributes) {
	*attributes = malloc(sizeof **attributes);
	return error_of(pthread_attr_init(*attributes));
}

static int bsd_pthread_attr_destroy(pthread_attr_t **attributes) {
	int result = pthread_attr_destroy(*attributes);
	free(*attributes);
	return error_of(result);
}

static int bsd_pthread_attr_setstacksize(pthread_attr_t **attributes, size_t size) {
	return error_of(pthread_attr_setstacksize(*attributes, size + ROOM));
}

static int bsd_pthread_attr_getstack(pthread_attr_t **attributes, void **at, size_t *size) {
	return error_of(pthread_attr_getstack(*attributes, at, size));
}

static int bsd_pthread_attr_getguardsize(pthread_attr_t **attributes, size_t *size) {
	return error_of(pthread_attr_getguardsize(*attributes, size));
}

static int bsd_pthread_attr_get_np(pthread_t of, pthread_attr_t **attributes) {
	pthread_attr_destroy(*attributes);
	return error_of(pthread_getattr_np(of, *attributes));
}

static int bsd_pthread_getthreadid_np(void) { return gettid(); }

static int bsd_pthread_setname_np(pthread_t of, const char *name) {
	char cut[16];
	snprintf(cut, sizeof cut, "%s", name);
	return pthread_setname_np(of, cut);
}

static pthread_mutex_t making = PTHREAD_MUTEX_INITIALIZER;

static void *made(void **place, size_t size) {
	pthread_mutex_lock(&making);
	/* Zeros are a lock that nobody has. */
	if (*place == NULL)
		*place = calloc(1, size);
	pthread_mutex_unlock(&making);
	return *place;
}

#define LOCK(name, type) \
	static int bsd_##name(void **lock) { return error_of(name(made(lock, sizeof(type)))); }
LOCK(pthread_rwlock_rdlock, pthread_rwlock_t)
LOCK(pthread_rwlock_wrlock, pthread_rwlock_t)
LOCK(pthread_rwlock_unlock, pthread_rwlock_t)
LOCK(pthread_mutex_lock, pthread_mutex_t)
LOCK(pthread_mutex_unlock, pthread_mutex_t)

static int bsd_pthread_mutex_destroy(void **lock) {
	free(*lock);
	*lock = NULL;
	return 0;
}

struct bsd_timeout {
	struct timespec time;
	uint32_t flags, clock;
};

/* Waiting for a word to change, and waking who waits. */
static int bsd__umtx_op(uint32_t *word, int operation, unsigned long value, void *size, struct bsd_timeout *timeout) {
	enum { WAIT = 11, WAKE = 3, WAIT_PRIVATE = 15, WAKE_PRIVATE = 16, ABSOLUTE = 1 };
	if (operation == WAKE || operation == WAKE_PRIVATE) {
		int count = value > INT_MAX ? INT_MAX : (int)value;
		return syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, count, NULL, NULL, 0) < 0 ? told(-1) : 0;
	}
	if (operation != WAIT && operation != WAIT_PRIVATE)
		return refused(78);
	int how = FUTEX_WAIT_PRIVATE;
	/* The shorter form of a timeout is a time from now. */
	if (timeout != NULL && (size_t)size >= sizeof *timeout && timeout->flags & ABSOLUTE) {
		how = FUTEX_WAIT_BITSET_PRIVATE;
		if (clock_of(timeout->clock) == CLOCK_REALTIME)
			how |= FUTEX_CLOCK_REALTIME;
	}
	const struct timespec *time = timeout != NULL ? &timeout->time : NULL;
	long result = syscall(SYS_futex, word, how, (uint32_t)value, time, NULL, FUTEX_BITSET_MATCH_ANY);
	return result < 0 && errno == EAGAIN ? 0 : told(result);
}

/* ---- the program itself */

static int bsd_dl_iterate_phdr(int (*see)(struct dl_phdr_info *, size_t, void *), void *with) {
	struct dl_phdr_info info = {
		.dlpi_addr = (Elf64_Addr)program.base, .dlpi_name = "", .dlpi_phdr = program.headers,
		.dlpi_phnum = program.headers_len, .dlpi_adds = 1,
	};
	return see(&info, sizeof info, with);
}

static int bsd_nothing(void) { return 0; }

static void bsd___libc_start1(int argc, char **argv, char **env, void (*cleanup)(void), int (*begin)(int, char **, char **)) {
	(void)cleanup;
	if (program.environment != NULL)
		*program.environment = env;
	void (**constructors)(int, char **, char **) = NULL;
	size_t count = 0;
	for (const Elf64_Dyn *it = program.dynamic; it->d_tag != DT_NULL; it++) {
		if (it->d_tag == DT_INIT_ARRAY)
			constructors = (void *)(program.base + it->d_un.d_ptr);
		if (it->d_tag == DT_INIT_ARRAYSZ)
			count = it->d_un.d_val / sizeof *constructors;
	}
	for (size_t i = 0; i < count; i++)
		constructors[i](argc, argv, env);
	exit(begin(argc, argv, env));
}

#define OURS(name) {#name, bsd_##name}
#define NOTHING(name) {#name, bsd_nothing}
static const struct {
	const char *name;
	void *function;
} translated[] = {
	OURS(__error), OURS(__libc_start1), OURS(_umtx_op), OURS(open), OURS(openat), OURS(unlinkat), OURS(renameat), OURS(fcntl),
	OURS(stat), OURS(lstat), OURS(fstat), OURS(fstatat), OURS(opendir), OURS(fdopendir), OURS(dirfd), OURS(closedir),
	OURS(readdir), OURS(read), OURS(write), OURS(pread), OURS(pwrite), OURS(readv), OURS(writev), OURS(lseek), OURS(close),
	OURS(fsync), OURS(fdatasync), OURS(ftruncate), OURS(flock), OURS(unlink), OURS(rmdir), OURS(mkdir), OURS(access), OURS(chmod),
	OURS(rename), OURS(symlink), OURS(readlink), OURS(munmap), OURS(mprotect), OURS(poll), OURS(nanosleep), OURS(getcwd),
	OURS(realpath), OURS(mmap), OURS(clock_gettime), OURS(clock_nanosleep), OURS(sysconf), OURS(cpuset_getaffinity),
	OURS(getrlimit), OURS(setrlimit), OURS(sysctl), {"sysctlbyname", bsd_sysctl}, OURS(arc4random_buf), OURS(strerror_r), OURS(sigaction),
	OURS(sigaltstack), OURS(signal), OURS(pthread_create), OURS(pthread_attr_init), OURS(pthread_attr_destroy),
	OURS(pthread_attr_setstacksize), OURS(pthread_attr_getstack), OURS(pthread_attr_getguardsize),
	OURS(pthread_attr_get_np), OURS(pthread_getthreadid_np), OURS(pthread_setname_np), OURS(pthread_rwlock_rdlock),
	OURS(pthread_rwlock_wrlock), OURS(pthread_rwlock_unlock), OURS(pthread_mutex_lock), OURS(pthread_mutex_unlock),
	OURS(pthread_mutex_destroy), OURS(dl_iterate_phdr), NOTHING(dladdr), NOTHING(dlsym), NOTHING(pthread_sigmask),
};

/* What is the same with both. */
static const char *const same[] = {
	"abort", "bcmp", "calloc", "dup", "exit", "_exit", "fflush", "fprintf", "free", "fwrite", "getegid", "getenv", "geteuid", "getgid",
	"getpid", "getuid", "isatty", "malloc", "memchr", "memcmp", "memcpy", "memmove", "memset", "posix_memalign",
	"pthread_detach", "pthread_join", "pthread_key_create", "pthread_key_delete", "pthread_self",
	"pthread_setspecific", "pthread_getspecific", "realloc", "sched_yield", "snprintf", "strlen", "getrandom",
};

static void not_here(const char *name) { die("this is not here: ", name); }

/* A piece of code that says which call is not here: not before it is called. */
static void *missing(const char *name) {
	static unsigned char *at, *end;
	if (at == end) {
		at = mmap(NULL, 65536, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		end = at + 65536;
	}
	unsigned char *code = at;
	void (*target)(const char *) = not_here;
	at += 32;
	/* mov rdi, name; mov rax, target; and rsp, -16; call rax */
	memcpy(code, "\x48\xbf", 2), memcpy(code + 2, &name, 8);
	memcpy(code + 10, "\x48\xb8", 2), memcpy(code + 12, &target, 8);
	memcpy(code + 20, "\x48\x83\xe4\xf0\xff\xd0", 6);
	return code;
}

static void *find(const char *name, int is_weak) {
	static FILE *errors;
	errors = stderr;
	if (strcmp(name, "__stderrp") == 0)
		return &errors;
	for (size_t i = 0; i < sizeof translated / sizeof *translated; i++)
		if (strcmp(translated[i].name, name) == 0)
			return translated[i].function;
	for (size_t i = 0; i < sizeof same / sizeof *same; i++)
		if (strcmp(same[i], name) == 0)
			return dlsym(RTLD_DEFAULT, name);
	return is_weak ? NULL : missing(name);
}

/* ---- loading */

static void map(const char *file) {
	for (int i = 0; i < program.headers_len; i++) {
		const Elf64_Phdr *it = &program.headers[i];
		if (it->p_type == PT_LOAD)
			memcpy(program.base + it->p_vaddr, file + it->p_offset, it->p_filesz);
		if (it->p_type == PT_DYNAMIC)
			program.dynamic = (void *)(program.base + it->p_vaddr);
		if (it->p_type == PT_TLS) {
			program.locals = program.base + it->p_vaddr;
			program.locals_len = it->p_filesz;
			program.locals_size = (it->p_memsz + it->p_align - 1) / it->p_align * it->p_align;
		}
	}
	if (program.dynamic == NULL || program.locals_size > ROOM - 64)
		die("no dynamic program, or too many thread-local variables", "");
}

static void relocate(const Elf64_Rela *entries, size_t count, const Elf64_Sym *symbols, const char *names) {
	for (size_t i = 0; i < count; i++) {
		const Elf64_Rela *it = &entries[i];
		const Elf64_Sym *symbol = &symbols[ELF64_R_SYM(it->r_info)];
		uint64_t *place = (void *)(program.base + it->r_offset);
		if (ELF64_R_TYPE(it->r_info) == R_X86_64_RELATIVE) {
			*place = (uint64_t)program.base + it->r_addend;
			continue;
		}
		if (ELF64_R_TYPE(it->r_info) == R_X86_64_TPOFF64) {
			*place = symbol->st_value + it->r_addend - program.locals_size;
			continue;
		}
		const char *name = names + symbol->st_name;
		int is_ours = symbol->st_shndx != SHN_UNDEF;
		char *value = is_ours ? program.base + symbol->st_value : find(name, ELF64_ST_BIND(symbol->st_info) == STB_WEAK);
		if (strcmp(name, "environ") == 0 && is_ours)
			program.environment = (void *)value;
		switch (ELF64_R_TYPE(it->r_info)) {
		case R_X86_64_GLOB_DAT: case R_X86_64_JUMP_SLOT: *place = (uint64_t)value; break;
		case R_X86_64_64: *place = (uint64_t)value + it->r_addend; break;
		default: die("a relocation of a kind that is not here: ", name);
		}
	}
}

static void link_it(void) {
	const Elf64_Sym *symbols = NULL;
	const char *names = NULL;
	const Elf64_Rela *entries[2] = {NULL, NULL};
	size_t sizes[2] = {0, 0};
	for (const Elf64_Dyn *it = program.dynamic; it->d_tag != DT_NULL; it++) {
		void *at = program.base + it->d_un.d_ptr;
		switch (it->d_tag) {
		case DT_SYMTAB: symbols = at; break;
		case DT_STRTAB: names = at; break;
		case DT_RELA: entries[0] = at; break;
		case DT_RELASZ: sizes[0] = it->d_un.d_val; break;
		case DT_JMPREL: entries[1] = at; break;
		case DT_PLTRELSZ: sizes[1] = it->d_un.d_val; break;
		}
	}
	for (int i = 0; i < 2; i++)
		relocate(entries[i], sizes[i] / sizeof(Elf64_Rela), symbols, names);
}

int main(int argc, char **argv, char **env) {
	if (argc < 2)
		die("usage: loader PROGRAM [ARGUMENTS]", "");
	int fd = open(argv[1], O_RDONLY | O_CLOEXEC);
	struct stat found;
	if (fd < 0 || fstat(fd, &found) != 0)
		die("cannot be opened: ", argv[1]);
	char *file = mmap(NULL, found.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	close(fd);
	const Elf64_Ehdr *header = (void *)file;
	if (file == MAP_FAILED || memcmp(file, ELFMAG, SELFMAG) != 0 || header->e_machine != EM_X86_64 || header->e_type != ET_DYN)
		die("not a program for amd64 that can be anywhere: ", argv[1]);
	program.headers = (void *)(file + header->e_phoff);
	program.headers_len = header->e_phnum;
	size_t size = 0;
	for (int i = 0; i < program.headers_len; i++)
		if (program.headers[i].p_type == PT_LOAD && program.headers[i].p_vaddr + program.headers[i].p_memsz > size)
			size = program.headers[i].p_vaddr + program.headers[i].p_memsz;
	int all = PROT_READ | PROT_WRITE | PROT_EXEC;
	program.base = mmap(NULL, size, all, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (program.base == MAP_FAILED)
		die("no memory for ", argv[1]);
	map(file);
	link_it();
	give_locals();
	/* As the kernel leaves it: the count, the arguments, the environment. */
	int env_len = 0;
	while (env[env_len] != NULL)
		env_len++;
	uint64_t *stack = calloc(argc + env_len + 4, sizeof *stack), *next = stack;
	*next++ = argc - 1;
	for (int i = 1; i <= argc; i++)
		*next++ = (uint64_t)argv[i];
	for (int i = 0; i <= env_len; i++)
		*next++ = (uint64_t)env[i];
	void *entry = program.base + header->e_entry;
	__asm__ volatile("xor %%esi, %%esi; and $-16, %%rsp; push $0; jmp *%0" : : "r"(entry), "D"(stack) : "memory");
	__builtin_unreachable();
}
