//! Names of the errors that opening a file may give, as in open(2). The numbers are those of Linux on all architectures
//! but alpha, mips, parisc and sparc (include/uapi/asm-generic/errno-base.h and errno.h).

/// The error's name, where the result is an error and has one of these.
pub fn name(result: i64) -> Option<&'static str> {
    Some(match result {
        -1 => "EPERM",
        -2 => "ENOENT",
        -4 => "EINTR",
        -5 => "EIO",
        -6 => "ENXIO",
        -7 => "E2BIG",
        -9 => "EBADF",
        -11 => "EAGAIN",
        -12 => "ENOMEM",
        -13 => "EACCES",
        -14 => "EFAULT",
        -16 => "EBUSY",
        -17 => "EEXIST",
        -18 => "EXDEV",
        -19 => "ENODEV",
        -20 => "ENOTDIR",
        -21 => "EISDIR",
        -22 => "EINVAL",
        -23 => "ENFILE",
        -24 => "EMFILE",
        -26 => "ETXTBSY",
        -27 => "EFBIG",
        -28 => "ENOSPC",
        -30 => "EROFS",
        -36 => "ENAMETOOLONG",
        -38 => "ENOSYS",
        -40 => "ELOOP",
        -75 => "EOVERFLOW",
        -95 => "EOPNOTSUPP",
        -110 => "ETIMEDOUT",
        -116 => "ESTALE",
        -122 => "EDQUOT",
        _ => return None,
    })
}
