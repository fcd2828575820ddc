//! Files opened, with path and result.
//!
//! The path is known where the system call is entered, the result where it returns: two events, which the handler joins
//! by thread. See [`join`] for how, and for what becomes of events whose other half does not come.

mod errno;
mod join;

use porthole_guest::prelude::*;

use join::{Entered, Joined, Pending};

/// A thread asks for a file.
#[derive(Event)]
#[probe(
    attach = [
        "tracepoint:syscalls:sys_enter_openat",
        "tracepoint:syscalls:sys_enter_openat2",
        "tracepoint:syscalls:sys_enter_open",
    ],
    bind(file = "args.filename")
)]
#[probe(name = "enter_creat", attach = "tracepoint:syscalls:sys_enter_creat", bind(file = "args.pathname"))]
struct Enter<'a> {
    tid: u32,
    pid: u32,
    comm: Comm,
    #[expr("str(file)")]
    path: Option<Text<'a>>,
}

/// The kernel has answered it.
#[derive(Event)]
#[probe(attach = [
    "tracepoint:syscalls:sys_exit_openat",
    "tracepoint:syscalls:sys_exit_openat2",
    "tracepoint:syscalls:sys_exit_open",
    "tracepoint:syscalls:sys_exit_creat",
])]
struct Exit {
    tid: u32,
    #[expr("args.ret")]
    result: i64,
}

#[derive(Event)]
enum Call<'a> {
    Enter(Enter<'a>),
    Exit(Exit),
}

#[derive(Default)]
struct Opens {
    pending: Pending,
}

impl Plugin for Opens {
    type Event<'a> = Call<'a>;

    fn declare(&mut self, args: &mut Args, declaration: &mut Declaration) -> Result<(), String> {
        if let Some(pid) = args.value::<u32>("--pid")? {
            declaration.when(&format!("pid == {pid}"));
        }
        if let Some(comm) = args.value::<String>("--comm")? {
            declaration.when(&format!("comm == {}", quote(&comm)));
        }
        Ok(())
    }

    fn on_batch<'a>(&mut self, batch: &Batch<'a, Self>, out: &mut Output<'a>) -> Result<(), String> {
        self.pending.begin_batch(batch.lost());
        batch.for_each_by_time(out, |event, out| self.on(event, out));
        Ok(())
    }

    fn on(&mut self, event: &Call, out: &mut Output) {
        let joined = match event {
            Call::Enter(enter) => {
                let path = enter.path.map(|path| path.as_bytes().into());
                let entered = Entered { time_ns: out.time_ns(), pid: enter.pid, comm: enter.comm, path };
                self.pending.enter(enter.tid, entered)
            }
            Call::Exit(exit) => self.pending.exit(exit.tid, out.time_ns(), exit.result),
        };
        if let Some(joined) = joined {
            row(&joined, out);
        }
    }

    fn stop(&mut self, out: &mut Output) {
        let unmatched = self.pending.unmatched();
        if unmatched != 0 {
            let text =
                format!("{unmatched} entries or exits without their other half, such as calls under way at the start");
            out.log(Level::Info, &text);
        }
    }
}

/// The row has the time of the answer.
fn row(joined: &Joined, out: &mut Output) {
    let Joined { entered, exit_ns, result } = joined;
    out.new_row("open")
        .at(*exit_ns)
        .column("pid", entered.pid)
        .column("comm", &entered.comm)
        .column("path", entered.path.as_deref().map(Value::text_or_bytes))
        .column("result", *result)
        .column("error", errno::name(*result))
        .send();
}

porthole_guest::register!(Opens);

#[cfg(test)]
mod tests {
    use super::*;
    use porthole_guest::testing::{NewBatch, Run, Sent, declare};

    fn enter(batch: &mut NewBatch, time_ns: u64, cpu: u16, tid: u32, path: &str) {
        let fields = [("tid", tid.into()), ("pid", 7u32.into()), ("comm", "sh".into()), ("path", path.into())];
        batch.event("enter", time_ns, cpu, &fields);
    }

    fn exit(batch: &mut NewBatch, time_ns: u64, cpu: u16, tid: u32, result: i64) {
        batch.event("exit", time_ns, cpu, &[("tid", tid.into()), ("result", result.into())]);
    }

    fn open(time_ns: u64, path: &str, result: i64, error: Option<&str>) -> Sent {
        let columns = [
            ("pid", 7u32.into()),
            ("comm", "sh".into()),
            ("path", path.into()),
            ("result", result.into()),
            ("error", error.into()),
        ];
        Sent::row("open", Some(time_ns), &columns)
    }

    #[test]
    fn conditions_stand_on_every_probe() {
        let declaration = declare::<Opens>(&["--pid=7", "--comm", "sh"]).expect("the arguments are good");
        assert_eq!(declaration.probes.len(), 3);
        assert!(declaration.probes.iter().all(|probe| probe.body.len() >= 3));
    }

    #[test]
    fn entry_and_exit_make_a_row() {
        let mut run = Run::<Opens>::start(&[]).expect("it starts");
        let sent = run.batch(|batch| {
            enter(batch, 10, 0, 1, "/a");
            enter(batch, 11, 1, 2, "/b");
            exit(batch, 12, 0, 1, 3);
            exit(batch, 13, 1, 2, -2);
        });
        assert_eq!(sent, Ok(vec![open(12, "/a", 3, None), open(13, "/b", -2, Some("ENOENT"))]));
        assert_eq!(run.stop(), []);
    }

    /// Between entry and exit the thread has moved from CPU 1 to CPU 0, whose events come first.
    #[test]
    fn a_thread_that_migrates_is_joined_within_a_batch() {
        let mut run = Run::<Opens>::start(&[]).expect("it starts");
        let sent = run.batch(|batch| {
            exit(batch, 20, 0, 1, 3);
            enter(batch, 30, 0, 1, "/b");
            enter(batch, 10, 1, 1, "/a");
            exit(batch, 40, 1, 1, 4);
        });
        assert_eq!(sent, Ok(vec![open(20, "/a", 3, None), open(40, "/b", 4, None)]));
    }

    #[test]
    fn a_thread_that_migrates_is_joined_across_two_batches() {
        let mut run = Run::<Opens>::start(&[]).expect("it starts");
        assert_eq!(run.batch(|batch| exit(batch, 20, 0, 1, 3)), Ok(vec![]));
        assert_eq!(run.batch(|batch| enter(batch, 10, 1, 1, "/a")), Ok(vec![open(20, "/a", 3, None)]));
        assert_eq!(run.stop(), []);
    }

    #[test]
    fn halves_without_the_other_are_counted() {
        let mut run = Run::<Opens>::start(&[]).expect("it starts");
        // Under way when the probes were attached: one batch later the entry is not expected any more.
        assert_eq!(run.batch(|batch| exit(batch, 20, 0, 1, 3)), Ok(vec![]));
        assert_eq!(run.batch(|_| ()), Ok(vec![]));
        assert_eq!(run.batch(|batch| enter(batch, 30, 0, 1, "/b")), Ok(vec![]));
        // The next entry of the thread: the exit of this one was lost.
        assert_eq!(run.batch(|batch| enter(batch, 40, 0, 1, "/c")), Ok(vec![]));
        // What waits when events are lost may wait for one of those.
        let sent = run.batch(|batch| {
            batch.lost(1);
            exit(batch, 50, 0, 1, 3);
        });
        assert_eq!(sent, Ok(vec![]));
        let text = "4 entries or exits without their other half, such as calls under way at the start";
        assert_eq!(run.stop(), [Sent::Log(Level::Info, text.to_owned())]);
    }
}
