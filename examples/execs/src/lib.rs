//! New programs, with their path and their parent.
//!
//! The kernel sends one event for each program that is started, and the event is the row: the plugin only forwards it.

use porthole_guest::prelude::*;

/// A process has begun to run another program. The tracepoint (`sched_process_exec` in the kernel's
/// include/trace/events/sched.h) fires in the process itself, when the new program's name is set already.
#[derive(Event)]
#[probe(attach = "rawtracepoint:sched_process_exec")]
struct Exec<'a> {
    pid: u32,
    #[expr("task.real_parent.tgid")]
    ppid: i32,
    uid: u32,
    /// The new program's name.
    comm: Comm,
    #[expr("task.real_parent.comm")]
    parent: Comm,
    #[expr("str(args.bprm.filename)")]
    path: Option<Text<'a>>,
}

#[derive(Default)]
struct Execs;

impl Plugin for Execs {
    type Event<'a> = Exec<'a>;

    fn declare(&mut self, args: &mut Args, declaration: &mut Declaration) -> Result<(), String> {
        if let Some(pid) = args.value::<u32>("--pid")? {
            declaration.when(&format!("pid == {pid} || task.real_parent.tgid == {pid}"));
        }
        if let Some(comm) = args.value::<String>("--comm")? {
            declaration.when(&format!("comm == {}", quote(&comm)));
        }
        Ok(())
    }

    fn on(&mut self, _: &Exec, out: &mut Output) {
        out.forward();
    }
}

porthole_guest::register!(Execs);

#[cfg(test)]
mod tests {
    use super::*;
    use porthole_guest::testing::{Run, Sent, declare};
    use porthole_guest::{Probe, Step};

    #[test]
    fn arguments_become_conditions() {
        let declaration = declare::<Execs>(&["--pid", "7", "--comm", "ls"]).expect("the arguments are good");
        let [Probe { name, body, .. }] = &declaration.probes[..] else { panic!("{declaration:?}") };
        assert_eq!(name, "exec");
        let conditions =
            [Step::When("comm == \"ls\"".into()), Step::When("pid == 7 || task.real_parent.tgid == 7".into())];
        assert_eq!(body[..2], conditions);
        assert!(declare::<Execs>(&["--pid", "x"]).is_err());
        assert!(declare::<Execs>(&["--what"]).is_err());
    }

    #[test]
    fn each_event_is_forwarded() {
        let mut run = Run::<Execs>::start(&[]).expect("it starts");
        let sent = run
            .batch(|batch| {
                batch.event("exec", 1, 0, &[("pid", 7u32.into()), ("path", "/bin/ls".into())]);
                batch.event("exec", 2, 1, &[("pid", 8u32.into())]);
            })
            .expect("the batch is good");
        assert!(matches!(&sent[..], [Sent::Forwarded(_)]), "{sent:?}");
    }
}
