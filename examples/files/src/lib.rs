//! Files opened, renamed and removed: what they are to the file system, beside what they are called.
//!
//! Unless told otherwise the plugin looks at system calls when they return. An open file is found by its descriptor. Of
//! a file that was renamed or removed there are the names that the program gave, and the directory where they begin:
//! the registers that the call was entered with are kept until it has returned, so no entry need be joined with it.
//!
//! With `--lsm` it looks at hooks of the kernel's security modules instead, before the kernel does what was asked for.
//! There the file itself is passed, also to what renames and removes it, and kernel functions read its extended
//! attributes.

use porthole_guest::prelude::*;

/// A file has been opened.
#[derive(Event)]
#[probe(
    attach = "tracepoint:syscalls:sys_exit_{open,openat,openat2,creat}",
    when = "args.ret >= 0",
    bind(file = "task.files.fdt.fd[args.ret]", inode = "file.f_inode")
)]
struct Opened<'a> {
    pid: u32,
    comm: Comm,
    #[expr("path(file)")]
    path: Option<Text<'a>>,
    #[expr("inode.i_ino")]
    inode: Option<u64>,
    #[expr("inode.i_size")]
    size: Option<i64>,
    #[expr("inode.i_uid.val")]
    owner: Option<u32>,
    #[expr("inode.i_sb.s_dev >> 20")]
    major: Option<i64>,
    #[expr("inode.i_sb.s_dev & 0xfffff")]
    minor: Option<i64>,
    #[expr("str(inode.i_sb.s_type.name)")]
    fs: Option<Text<'a>>,
}

/// A file has been renamed or removed, or could not be.
///
/// The calls that end in `at`, and `renameat2`, are passed the directory in front of the name.
#[derive(Event)]
#[probe(
    attach = "rawtracepoint:sys_exit",
    bind(call = "syscall(args.regs.orig_ax)"),
    when = "call in (\"unlink\", \"unlinkat\", \"rmdir\", \"rename\", \"renameat\", \"renameat2\")",
    bind(
        at = "call in (\"unlinkat\", \"renameat\", \"renameat2\")",
        name = "user((char *)(at ? args.regs.si : args.regs.di))",
        new = "user((char *)(call == \"rename\" ? args.regs.si : call in (\"renameat\", \"renameat2\") ? args.regs.r10 : 0))",
        number = "at ? (int)args.regs.di : AT_FDCWD",
        directory = "name[0] == '/' ? &task.fs.root : number < 0 ? &task.fs.pwd : &task.files.fdt.fd[number].f_path"
    )
)]
struct Changed<'a> {
    pid: u32,
    comm: Comm,
    #[expr("call")]
    call: i64,
    #[expr("errno(args.ret)")]
    result: i64,
    #[expr("str(name)")]
    path: Option<Text<'a>>,
    #[expr("str(new)")]
    to: Option<Text<'a>>,
    /// Where the path begins, and below it what is known of that.
    #[expr("path(directory)")]
    directory: Option<Text<'a>>,
    #[expr("directory.dentry.d_inode.i_ino")]
    inode: Option<u64>,
    #[expr("directory.dentry.d_sb.s_dev >> 20")]
    major: Option<i64>,
    #[expr("directory.dentry.d_sb.s_dev & 0xfffff")]
    minor: Option<i64>,
    #[expr("str(directory.dentry.d_sb.s_type.name)")]
    fs: Option<Text<'a>>,
}

/// A file is about to be opened.
#[derive(Event)]
#[probe(
    attach = "lsm:file_open",
    kfuncs = ["bpf_path_d_path?", "bpf_get_file_xattr?"],
    bind(inode = "args.file.f_inode")
)]
struct Open<'a> {
    pid: u32,
    comm: Comm,
    #[expr("path(args.file)")]
    path: Option<Text<'a>>,
    /// The path as the process itself has it, below its own root.
    #[expr("bpf_path_d_path(&args.file.f_path, 256)")]
    own_path: Option<Text<'a>>,
    /// Where it has been loaded down from, as browsers and wget note it.
    #[expr("bpf_get_file_xattr(args.file, \"user.xdg.origin.url\")")]
    origin: Option<Text<'a>>,
    #[expr("inode.i_ino")]
    inode: Option<u64>,
    #[expr("inode.i_size")]
    size: Option<i64>,
    #[expr("inode.i_uid.val")]
    owner: Option<u32>,
    #[expr("inode.i_sb.s_dev >> 20")]
    major: Option<i64>,
    #[expr("inode.i_sb.s_dev & 0xfffff")]
    minor: Option<i64>,
    #[expr("str(inode.i_sb.s_type.name)")]
    fs: Option<Text<'a>>,
}

/// A file is about to be removed, or to be renamed.
#[derive(Event)]
#[probe(
    name = "remove",
    attach = ["lsm:inode_unlink", "lsm:inode_rmdir"],
    bind(
        what = "probe == \"lsm:inode_unlink\" ? \"unlink\" : \"rmdir\"",
        dentry = "args.dentry",
        new = "(struct dentry *)0"
    )
)]
#[probe(
    name = "rename",
    attach = "lsm:inode_rename",
    bind(what = "\"rename\"", dentry = "args.old_dentry", new = "args.new_dentry")
)]
struct Change<'a> {
    pid: u32,
    comm: Comm,
    #[expr("what")]
    what: Text<'a>,
    /// Below the root of its file system.
    #[expr("path(dentry)")]
    path: Option<Text<'a>>,
    #[expr("path(new)")]
    to: Option<Text<'a>>,
    #[expr("dentry.d_inode.i_ino")]
    inode: Option<u64>,
    #[expr("dentry.d_inode.i_nlink")]
    links: Option<u32>,
    #[expr("dentry.d_inode.i_size")]
    size: Option<i64>,
    #[expr("dentry.d_inode.i_uid.val")]
    owner: Option<u32>,
    #[expr("dentry.d_sb.s_dev >> 20")]
    major: Option<i64>,
    #[expr("dentry.d_sb.s_dev & 0xfffff")]
    minor: Option<i64>,
    #[expr("str(dentry.d_sb.s_type.name)")]
    fs: Option<Text<'a>>,
}

#[derive(Event)]
enum File<'a> {
    Opened(Opened<'a>),
    Changed(Changed<'a>),
    Open(Open<'a>),
    Change(Change<'a>),
}

#[derive(Default)]
struct Files;

impl Plugin for Files {
    type Event<'a> = File<'a>;

    fn declare(&mut self, args: &mut Args, declaration: &mut Declaration) -> Result<(), String> {
        let lsm = args.flag("--lsm");
        declaration.probes.retain(|probe| probe.attach.iter().all(|point| point.starts_with("lsm:") == lsm));
        if !lsm {
            declaration.kfuncs.clear();
        }
        if let Some(pid) = args.value::<u32>("--pid")? {
            declaration.when(&format!("pid == {pid}"));
        }
        if let Some(comm) = args.value::<String>("--comm")? {
            declaration.when(&format!("comm == {}", quote(&comm)));
        }
        Ok(())
    }

    fn on(&mut self, _: &File, out: &mut Output) {
        out.forward();
    }
}

porthole_guest::register!(Files);

#[cfg(test)]
mod tests {
    use super::*;
    use porthole_guest::testing::{Run, Sent, declare};

    fn probes(args: &[&str]) -> Vec<String> {
        let declaration = declare::<Files>(args).expect("the arguments are good");
        declaration.probes.into_iter().map(|probe| probe.name).collect()
    }

    #[test]
    fn one_of_two_ways_is_declared() {
        assert_eq!(probes(&[]), ["opened", "changed"]);
        assert_eq!(probes(&["--lsm"]), ["open", "remove", "rename"]);
    }

    #[test]
    fn kfuncs_are_called_at_hooks_and_may_be_missing() {
        let listed = |args: &[&str]| {
            let declaration = declare::<Files>(args).expect("the arguments are good");
            declaration.kfuncs.into_iter().map(|kfunc| (kfunc.name, kfunc.required)).collect::<Vec<_>>()
        };
        assert_eq!(listed(&[]), []);
        let expected = ["bpf_path_d_path", "bpf_get_file_xattr"].map(|name| (name.to_owned(), false));
        assert_eq!(listed(&["--lsm"]), expected);
    }

    #[test]
    fn conditions_stand_on_every_probe() {
        for way in [&["--pid=7", "--comm", "sh"][..], &["--pid=7", "--comm", "sh", "--lsm"]] {
            let declaration = declare::<Files>(way).expect("the arguments are good");
            let conditions = declaration.probes.iter().map(|probe| format!("{:?}", &probe.body[..2]));
            assert!(conditions.into_iter().all(|both| both.contains("pid == 7") && both.contains("comm == ")));
        }
        assert!(declare::<Files>(&["--pid", "x"]).is_err());
    }

    #[test]
    fn each_event_is_forwarded() {
        let mut run = Run::<Files>::start(&[]).expect("it starts");
        let sent = run
            .batch(|batch| {
                batch.event("opened", 1, 0, &[("pid", 7u32.into()), ("path", "/etc/hostname".into())]);
                batch.event("changed", 2, 0, &[("pid", 7u32.into()), ("path", "old".into())]);
            })
            .expect("the batch is good");
        assert!(matches!(&sent[..], [Sent::Forwarded(_)]), "{sent:?}");
    }
}
