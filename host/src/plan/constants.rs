//! Constants that the kernel's BTF lacks, because they are macros in its headers: as x86-64 has them
//! (include/uapi/asm-generic, arch/x86/include/uapi/asm, include/uapi/linux).
//!
//! Error numbers are positive, as in C: `args.ret == -ENOENT`. From 512 on they are the kernel's own
//! (include/linux/errno.h). Names that are enumerators in every kernel (`SOCK_STREAM`, `IPPROTO_TCP`) are not here: BTF
//! has them, with their enumeration.

/// The value of the constant.
pub fn value(name: &str) -> Option<i64> {
    CONSTANTS.binary_search_by(|(n, _)| (*n).cmp(name)).ok().map(|at| CONSTANTS[at].1)
}

/// Those whose names begin so.
pub fn from(prefix: &str) -> impl Iterator<Item = (&'static str, i64)> {
    CONSTANTS.iter().copied().filter(move |(name, _)| name.starts_with(prefix))
}

/// All names.
pub fn names() -> impl Iterator<Item = &'static str> {
    CONSTANTS.iter().map(|(name, _)| *name)
}

/// Sorted by name.
#[rustfmt::skip]
const CONSTANTS: [(&str, i64); 515] = [
    ("AF_ALG", 38), ("AF_APPLETALK", 5), ("AF_ASH", 18), ("AF_ATMPVC", 8), ("AF_ATMSVC", 20), ("AF_AX25", 3), ("AF_BLUETOOTH", 31),
    ("AF_BRIDGE", 7), ("AF_CAIF", 37), ("AF_CAN", 29), ("AF_DECnet", 12), ("AF_ECONET", 19), ("AF_FILE", 1), ("AF_IB", 27),
    ("AF_IEEE802154", 36), ("AF_INET", 2), ("AF_INET6", 10), ("AF_IPX", 4), ("AF_IRDA", 23), ("AF_ISDN", 34), ("AF_IUCV", 32),
    ("AF_KCM", 41), ("AF_KEY", 15), ("AF_LLC", 26), ("AF_LOCAL", 1), ("AF_MCTP", 45), ("AF_MPLS", 28), ("AF_NETBEUI", 13),
    ("AF_NETLINK", 16), ("AF_NETROM", 6), ("AF_NFC", 39), ("AF_PACKET", 17), ("AF_PHONET", 35), ("AF_PPPOX", 24), ("AF_QIPCRTR", 42),
    ("AF_RDS", 21), ("AF_ROSE", 11), ("AF_ROUTE", 16), ("AF_RXRPC", 33), ("AF_SECURITY", 14), ("AF_SMC", 43), ("AF_SNA", 22),
    ("AF_TIPC", 30), ("AF_UNIX", 1), ("AF_UNSPEC", 0), ("AF_VSOCK", 40), ("AF_WANPIPE", 25), ("AF_X25", 9), ("AF_XDP", 44),
    ("AT_EACCESS", 0x200), ("AT_EMPTY_PATH", 0x1000), ("AT_FDCWD", -100), ("AT_NO_AUTOMOUNT", 0x800), ("AT_RECURSIVE", 0x8000),
    ("AT_REMOVEDIR", 0x200), ("AT_STATX_DONT_SYNC", 0x4000), ("AT_STATX_FORCE_SYNC", 0x2000), ("AT_STATX_SYNC_AS_STAT", 0),
    ("AT_STATX_SYNC_TYPE", 0x6000), ("AT_SYMLINK_FOLLOW", 0x400), ("AT_SYMLINK_NOFOLLOW", 0x100),
    ("CLONE_CHILD_CLEARTID", 0x200000), ("CLONE_CHILD_SETTID", 0x1000000), ("CLONE_CLEAR_SIGHAND", 0x100000000),
    ("CLONE_DETACHED", 0x400000), ("CLONE_FILES", 0x400), ("CLONE_FS", 0x200), ("CLONE_INTO_CGROUP", 0x200000000), ("CLONE_IO", 0x80000000),
    ("CLONE_NEWCGROUP", 0x2000000), ("CLONE_NEWIPC", 0x8000000), ("CLONE_NEWNET", 0x40000000), ("CLONE_NEWNS", 0x20000),
    ("CLONE_NEWPID", 0x20000000), ("CLONE_NEWTIME", 0x80), ("CLONE_NEWUSER", 0x10000000), ("CLONE_NEWUTS", 0x4000000),
    ("CLONE_PARENT", 0x8000), ("CLONE_PARENT_SETTID", 0x100000), ("CLONE_PIDFD", 0x1000), ("CLONE_PTRACE", 0x2000),
    ("CLONE_SETTLS", 0x80000), ("CLONE_SIGHAND", 0x800), ("CLONE_SYSVSEM", 0x40000), ("CLONE_THREAD", 0x10000),
    ("CLONE_UNTRACED", 0x800000), ("CLONE_VFORK", 0x4000), ("CLONE_VM", 0x100),
    ("CSIGNAL", 0xff),
    ("E2BIG", 7), ("EACCES", 13), ("EADDRINUSE", 98), ("EADDRNOTAVAIL", 99), ("EADV", 68), ("EAFNOSUPPORT", 97), ("EAGAIN", 11),
    ("EALREADY", 114), ("EBADCOOKIE", 523), ("EBADE", 52), ("EBADF", 9), ("EBADFD", 77), ("EBADHANDLE", 521), ("EBADMSG", 74),
    ("EBADR", 53), ("EBADRQC", 56), ("EBADSLT", 57), ("EBADTYPE", 527), ("EBFONT", 59), ("EBUSY", 16), ("ECANCELED", 125), ("ECHILD", 10),
    ("ECHRNG", 44), ("ECOMM", 70), ("ECONNABORTED", 103), ("ECONNREFUSED", 111), ("ECONNRESET", 104), ("EDEADLK", 35), ("EDEADLOCK", 35),
    ("EDESTADDRREQ", 89), ("EDOM", 33), ("EDOTDOT", 73), ("EDQUOT", 122), ("EEXIST", 17), ("EFAULT", 14), ("EFBIG", 27), ("EHOSTDOWN", 112),
    ("EHOSTUNREACH", 113), ("EHWPOISON", 133), ("EIDRM", 43), ("EILSEQ", 84), ("EINPROGRESS", 115), ("EINTR", 4), ("EINVAL", 22),
    ("EIO", 5), ("EIOCBQUEUED", 529), ("EISCONN", 106), ("EISDIR", 21), ("EISNAM", 120), ("EJUKEBOX", 528), ("EKEYEXPIRED", 127),
    ("EKEYREJECTED", 129), ("EKEYREVOKED", 128), ("EL2HLT", 51), ("EL2NSYNC", 45), ("EL3HLT", 46), ("EL3RST", 47), ("ELIBACC", 79),
    ("ELIBBAD", 80), ("ELIBEXEC", 83), ("ELIBSCN", 81), ("ELNRNG", 48), ("ELOOP", 40), ("EMEDIUMTYPE", 124), ("EMFILE", 24), ("EMLINK", 31),
    ("EMSGSIZE", 90), ("EMULTIHOP", 72), ("ENAMETOOLONG", 36), ("ENAVAIL", 119), ("ENETDOWN", 100), ("ENETRESET", 102),
    ("ENETUNREACH", 101), ("ENFILE", 23), ("ENOANO", 55), ("ENOBUFS", 105), ("ENOCSI", 50), ("ENODATA", 61), ("ENODEV", 19), ("ENOENT", 2),
    ("ENOEXEC", 8), ("ENOGRACE", 531), ("ENOIOCTLCMD", 515), ("ENOKEY", 126), ("ENOLCK", 37), ("ENOLINK", 67), ("ENOMEDIUM", 123),
    ("ENOMEM", 12), ("ENOMSG", 42), ("ENONET", 64), ("ENOPARAM", 519), ("ENOPKG", 65), ("ENOPROTOOPT", 92), ("ENOSPC", 28), ("ENOSR", 63),
    ("ENOSTR", 60), ("ENOSYS", 38), ("ENOTBLK", 15), ("ENOTCONN", 107), ("ENOTDIR", 20), ("ENOTEMPTY", 39), ("ENOTNAM", 118),
    ("ENOTRECOVERABLE", 131), ("ENOTSOCK", 88), ("ENOTSUP", 95), ("ENOTSUPP", 524), ("ENOTSYNC", 522), ("ENOTTY", 25), ("ENOTUNIQ", 76),
    ("ENXIO", 6), ("EOPENSTALE", 518), ("EOPNOTSUPP", 95), ("EOVERFLOW", 75), ("EOWNERDEAD", 130), ("EPERM", 1), ("EPFNOSUPPORT", 96),
    ("EPIPE", 32), ("EPROBE_DEFER", 517), ("EPROTO", 71), ("EPROTONOSUPPORT", 93), ("EPROTOTYPE", 91), ("ERANGE", 34),
    ("ERECALLCONFLICT", 530), ("EREMCHG", 78), ("EREMOTE", 66), ("EREMOTEIO", 121), ("ERESTART", 85), ("ERESTARTNOHAND", 514),
    ("ERESTARTNOINTR", 513), ("ERESTARTSYS", 512), ("ERESTART_RESTARTBLOCK", 516), ("ERFKILL", 132), ("EROFS", 30), ("ESERVERFAULT", 526),
    ("ESHUTDOWN", 108), ("ESOCKTNOSUPPORT", 94), ("ESPIPE", 29), ("ESRCH", 3), ("ESRMNT", 69), ("ESTALE", 116), ("ESTRPIPE", 86),
    ("ETIME", 62), ("ETIMEDOUT", 110), ("ETOOMANYREFS", 109), ("ETOOSMALL", 525), ("ETXTBSY", 26), ("EUCLEAN", 117), ("EUNATCH", 49),
    ("EUSERS", 87), ("EWOULDBLOCK", 11), ("EXDEV", 18), ("EXFULL", 54),
    ("FUTEX_CMP_REQUEUE", 4), ("FUTEX_LOCK_PI", 6), ("FUTEX_PRIVATE_FLAG", 128), ("FUTEX_REQUEUE", 3), ("FUTEX_UNLOCK_PI", 7),
    ("FUTEX_WAIT", 0), ("FUTEX_WAIT_BITSET", 9), ("FUTEX_WAKE", 1), ("FUTEX_WAKE_BITSET", 10),
    ("F_DUPFD", 0), ("F_DUPFD_CLOEXEC", 1030), ("F_GETFD", 1), ("F_GETFL", 3), ("F_GETLEASE", 1025), ("F_GETLK", 5), ("F_GETLK64", 5),
    ("F_GETOWN", 9), ("F_GETOWN_EX", 16), ("F_GETPIPE_SZ", 1032), ("F_GETSIG", 11), ("F_GET_FILE_RW_HINT", 1037), ("F_GET_RW_HINT", 1035),
    ("F_GET_SEALS", 1034), ("F_OK", 0), ("F_SETFD", 2), ("F_SETFL", 4), ("F_SETLEASE", 1024), ("F_SETLK", 6), ("F_SETLK64", 6),
    ("F_SETLKW", 7), ("F_SETLKW64", 7), ("F_SETOWN", 8), ("F_SETOWN_EX", 15), ("F_SETPIPE_SZ", 1031), ("F_SETSIG", 10),
    ("F_SET_FILE_RW_HINT", 1038), ("F_SET_RW_HINT", 1036),
    ("GRND_INSECURE", 4), ("GRND_NONBLOCK", 1), ("GRND_RANDOM", 2),
    ("LOCK_EX", 2), ("LOCK_MAND", 0x20), ("LOCK_NB", 4), ("LOCK_READ", 0x40), ("LOCK_RW", 0xc0), ("LOCK_SH", 1), ("LOCK_UN", 8),
    ("LOCK_WRITE", 0x80),
    ("MADV_COLD", 20), ("MADV_DODUMP", 17), ("MADV_DOFORK", 11), ("MADV_DONTDUMP", 16), ("MADV_DONTFORK", 10), ("MADV_DONTNEED", 4),
    ("MADV_DONTNEED_LOCKED", 24), ("MADV_FREE", 8), ("MADV_HUGEPAGE", 14), ("MADV_HWPOISON", 100), ("MADV_KEEPONFORK", 19),
    ("MADV_MERGEABLE", 12), ("MADV_NOHUGEPAGE", 15), ("MADV_NORMAL", 0), ("MADV_PAGEOUT", 21), ("MADV_POPULATE_READ", 22),
    ("MADV_POPULATE_WRITE", 23), ("MADV_RANDOM", 1), ("MADV_REMOVE", 9), ("MADV_SEQUENTIAL", 2), ("MADV_UNMERGEABLE", 13),
    ("MADV_WILLNEED", 3), ("MADV_WIPEONFORK", 18),
    ("MAP_32BIT", 0x40), ("MAP_ABOVE4G", 0x80), ("MAP_ANONYMOUS", 0x20), ("MAP_DENYWRITE", 0x800), ("MAP_DROPPABLE", 8),
    ("MAP_EXECUTABLE", 0x1000), ("MAP_FIXED", 0x10), ("MAP_FIXED_NOREPLACE", 0x100000), ("MAP_GROWSDOWN", 0x100),
    ("MAP_HUGETLB", 0x40000), ("MAP_LOCKED", 0x2000), ("MAP_NONBLOCK", 0x10000), ("MAP_NORESERVE", 0x4000), ("MAP_POPULATE", 0x8000),
    ("MAP_PRIVATE", 2), ("MAP_SHARED", 1), ("MAP_SHARED_VALIDATE", 3), ("MAP_STACK", 0x20000), ("MAP_SYNC", 0x80000), ("MAP_TYPE", 0xf),
    ("MAP_UNINITIALIZED", 0x4000000),
    ("MFD_ALLOW_SEALING", 2), ("MFD_CLOEXEC", 1), ("MFD_EXEC", 0x10), ("MFD_HUGETLB", 4), ("MFD_NOEXEC_SEAL", 8),
    ("MNT_DETACH", 2), ("MNT_EXPIRE", 4), ("MNT_FORCE", 1),
    ("MREMAP_DONTUNMAP", 4), ("MREMAP_FIXED", 2), ("MREMAP_MAYMOVE", 1),
    ("MSG_BATCH", 0x40000), ("MSG_CMSG_CLOEXEC", 0x40000000), ("MSG_CONFIRM", 0x800), ("MSG_CTRUNC", 8), ("MSG_DONTROUTE", 4),
    ("MSG_DONTWAIT", 0x40), ("MSG_EOR", 0x80), ("MSG_ERRQUEUE", 0x2000), ("MSG_FASTOPEN", 0x20000000), ("MSG_FIN", 0x200),
    ("MSG_MORE", 0x8000), ("MSG_NOSIGNAL", 0x4000), ("MSG_OOB", 1), ("MSG_PEEK", 2), ("MSG_PROXY", 0x10), ("MSG_RST", 0x1000),
    ("MSG_SYN", 0x400), ("MSG_TRUNC", 0x20), ("MSG_WAITALL", 0x100), ("MSG_WAITFORONE", 0x10000), ("MSG_ZEROCOPY", 0x4000000),
    ("MS_ACTIVE", 0x40000000), ("MS_ASYNC", 1), ("MS_BIND", 0x1000), ("MS_BORN", 0x20000000), ("MS_DIRSYNC", 0x80), ("MS_INVALIDATE", 2),
    ("MS_I_VERSION", 0x800000), ("MS_KERNMOUNT", 0x400000), ("MS_LAZYTIME", 0x2000000), ("MS_MANDLOCK", 0x40), ("MS_MOVE", 0x2000),
    ("MS_NOATIME", 0x400), ("MS_NODEV", 4), ("MS_NODIRATIME", 0x800), ("MS_NOEXEC", 8), ("MS_NOREMOTELOCK", 0x8000000),
    ("MS_NOSEC", 0x10000000), ("MS_NOSUID", 2), ("MS_NOSYMFOLLOW", 0x100), ("MS_NOUSER", 0x80000000), ("MS_POSIXACL", 0x10000),
    ("MS_PRIVATE", 0x40000), ("MS_RDONLY", 1), ("MS_REC", 0x4000), ("MS_RELATIME", 0x200000), ("MS_REMOUNT", 0x20), ("MS_SHARED", 0x100000),
    ("MS_SILENT", 0x8000), ("MS_SLAVE", 0x80000), ("MS_STRICTATIME", 0x1000000), ("MS_SUBMOUNT", 0x4000000), ("MS_SYNC", 4),
    ("MS_SYNCHRONOUS", 0x10), ("MS_UNBINDABLE", 0x20000),
    ("O_ACCMODE", 3), ("O_APPEND", 0x400), ("O_ASYNC", 0x2000), ("O_CLOEXEC", 0x80000), ("O_CREAT", 0x40), ("O_DIRECT", 0x4000),
    ("O_DIRECTORY", 0x10000), ("O_DSYNC", 0x1000), ("O_EXCL", 0x80), ("O_LARGEFILE", 0x8000), ("O_NDELAY", 0x800), ("O_NOATIME", 0x40000),
    ("O_NOCTTY", 0x100), ("O_NOFOLLOW", 0x20000), ("O_NONBLOCK", 0x800), ("O_PATH", 0x200000), ("O_RDONLY", 0), ("O_RDWR", 2),
    ("O_RSYNC", 0x101000), ("O_SYNC", 0x101000), ("O_TMPFILE", 0x410000), ("O_TRUNC", 0x200), ("O_WRONLY", 1),
    ("POLLERR", 8), ("POLLHUP", 0x10), ("POLLIN", 1), ("POLLOUT", 4), ("POLLPRI", 2),
    ("PROT_EXEC", 4), ("PROT_GROWSDOWN", 0x1000000), ("PROT_GROWSUP", 0x2000000), ("PROT_NONE", 0), ("PROT_READ", 1), ("PROT_SEM", 8),
    ("PROT_WRITE", 2),
    ("RENAME_EXCHANGE", 2), ("RENAME_NOREPLACE", 1), ("RENAME_WHITEOUT", 4),
    ("R_OK", 4),
    ("SA_INTERRUPT", 0x20000000), ("SA_NOCLDSTOP", 1), ("SA_NOCLDWAIT", 2), ("SA_NODEFER", 0x40000000), ("SA_ONSTACK", 0x8000000),
    ("SA_RESETHAND", 0x80000000), ("SA_RESTART", 0x10000000), ("SA_SIGINFO", 4),
    ("SEEK_CUR", 1), ("SEEK_DATA", 3), ("SEEK_END", 2), ("SEEK_HOLE", 4), ("SEEK_SET", 0),
    ("SIGABRT", 6), ("SIGALRM", 14), ("SIGBUS", 7), ("SIGCHLD", 17), ("SIGCONT", 18), ("SIGFPE", 8), ("SIGHUP", 1), ("SIGILL", 4),
    ("SIGINT", 2), ("SIGIO", 29), ("SIGIOT", 6), ("SIGKILL", 9), ("SIGPIPE", 13), ("SIGPROF", 27), ("SIGPWR", 30), ("SIGQUIT", 3),
    ("SIGSEGV", 11), ("SIGSTKFLT", 16), ("SIGSTOP", 19), ("SIGSYS", 31), ("SIGTERM", 15), ("SIGTRAP", 5), ("SIGTSTP", 20), ("SIGTTIN", 21),
    ("SIGTTOU", 22), ("SIGURG", 23), ("SIGUSR1", 10), ("SIGUSR2", 12), ("SIGVTALRM", 26), ("SIGWINCH", 28), ("SIGXCPU", 24),
    ("SIGXFSZ", 25),
    ("SOCK_CLOEXEC", 0x80000), ("SOCK_NONBLOCK", 0x800), ("SOCK_TYPE_MASK", 0xf),
    ("S_IFBLK", 0o60000), ("S_IFCHR", 0o20000), ("S_IFDIR", 0o40000), ("S_IFIFO", 0o10000), ("S_IFLNK", 0o120000), ("S_IFMT", 0o170000),
    ("S_IFREG", 0o100000), ("S_IFSOCK", 0o140000), ("S_IRGRP", 0o40), ("S_IROTH", 0o4), ("S_IRUSR", 0o400), ("S_IRWXG", 0o70),
    ("S_IRWXO", 0o7), ("S_IRWXU", 0o700), ("S_ISGID", 0o2000), ("S_ISUID", 0o4000), ("S_ISVTX", 0o1000), ("S_IWGRP", 0o20),
    ("S_IWOTH", 0o2), ("S_IWUSR", 0o200), ("S_IXGRP", 0o10), ("S_IXOTH", 0o1), ("S_IXUSR", 0o100),
    ("UMOUNT_NOFOLLOW", 8),
    ("WCONTINUED", 8), ("WNOHANG", 1), ("WUNTRACED", 2), ("W_OK", 2),
    ("X_OK", 1),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_sorted() {
        assert!(CONSTANTS.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert_eq!(value("O_NOTHING"), None);
    }

    #[test]
    fn they_are_what_the_c_library_says() {
        macro_rules! same {
            ($($name:ident)*) => {
                $(assert_eq!(value(stringify!($name)), Some(libc::$name as i64), stringify!($name));)*
            };
        }
        same!(O_RDONLY O_WRONLY O_RDWR O_CREAT O_EXCL O_TRUNC O_APPEND O_NONBLOCK O_DIRECTORY O_CLOEXEC O_PATH O_TMPFILE O_SYNC O_NOFOLLOW);
        same!(AF_UNIX AF_INET AF_INET6 AF_NETLINK AF_PACKET AF_VSOCK SOCK_NONBLOCK SOCK_CLOEXEC MSG_PEEK MSG_DONTWAIT MSG_NOSIGNAL);
        same!(MAP_SHARED MAP_PRIVATE MAP_FIXED MAP_ANONYMOUS MAP_HUGETLB MAP_POPULATE MAP_DROPPABLE PROT_NONE PROT_READ PROT_WRITE PROT_EXEC);
        same!(SIGHUP SIGINT SIGQUIT SIGKILL SIGSEGV SIGPIPE SIGTERM SIGCHLD SIGSTOP SIGUSR1 SIGUSR2 SIGSYS);
        same!(CLONE_VM CLONE_FS CLONE_THREAD CLONE_VFORK CLONE_NEWNS CLONE_NEWUSER CLONE_NEWPID CLONE_NEWNET);
        same!(EPERM ENOENT EINTR EIO EAGAIN EACCES EEXIST EINVAL ENOSPC EPIPE ENOSYS ETIMEDOUT ECONNREFUSED EHWPOISON);
        same!(S_IFMT S_IFREG S_IFDIR S_IFLNK S_IFSOCK S_ISUID S_IRWXU S_IXOTH AT_FDCWD AT_REMOVEDIR AT_SYMLINK_NOFOLLOW AT_EMPTY_PATH);
        same!(MS_RDONLY MS_NOSUID MS_BIND MS_REC MS_POSIXACL MS_NOUSER MS_KERNMOUNT MS_I_VERSION MS_ACTIVE MNT_FORCE MNT_DETACH MNT_EXPIRE);
        same!(RENAME_NOREPLACE RENAME_EXCHANGE RENAME_WHITEOUT MFD_CLOEXEC MFD_ALLOW_SEALING MFD_HUGETLB MFD_NOEXEC_SEAL MFD_EXEC);
        same!(GRND_NONBLOCK GRND_RANDOM GRND_INSECURE);
    }

    #[test]
    fn where_btf_has_them_too_it_agrees() {
        let recorded = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/kernel-6.18");
        let facts = crate::kernel::KernelFacts::from_dir(std::path::Path::new(recorded));
        for (name, value) in CONSTANTS {
            for (_, there) in facts.btf().unwrap().enumerators(name) {
                assert_eq!(*there, value, "{name}");
            }
        }
    }
}
