//! Calls of `getppid`, with pid and comm: a load that is easy to make, and a handler that does as little as one can.
//!
//! When it stops it sends one row, `total`, with `events`, `lost` and the `sum` of the pids. Arguments, all optional:
//!
//! * `--attach "POINT POINT…"`: calls of something else;
//! * `--comm NAME`: only of threads of this name;
//! * `--kfunc NAME --when CONDITION`: only where this holds, which calls that kernel function; with `--optional` a
//!   kernel may lack it;
//! * `--rows`: a row for each call as well;
//! * `--every N`: the row `total` also behind each N calls;
//! * `--tick MS`: a tick that often, which does nothing;
//! * `--spin N`: so many turns of an empty loop for each call. It makes the handler slow.

use std::hint::black_box;

use porthole_guest::prelude::*;

#[derive(Event)]
#[probe(attach = "tracepoint:syscalls:sys_enter_getppid")]
struct Call {
    pid: u32,
    comm: Comm,
}

#[derive(Default)]
struct Calls {
    rows: bool,
    every: u64,
    spin: u32,
    events: u64,
    lost: u64,
    sum: u64,
}

impl Plugin for Calls {
    type Event<'a> = Call;

    fn declare(&mut self, args: &mut Args, declaration: &mut Declaration) -> Result<(), String> {
        let attach: Option<String> = args.value("--attach")?;
        if let (Some(attach), Some(probe)) = (attach, declaration.probe("call")) {
            probe.attach = attach.split_whitespace().map(str::to_owned).collect();
        }
        if let Some(comm) = args.value::<String>("--comm")? {
            declaration.when(&format!("comm == {}", quote(&comm)));
        }
        let optional = args.flag("--optional");
        match args.value::<String>("--kfunc")? {
            Some(kfunc) if optional => declaration.optional_kfunc(&kfunc),
            Some(kfunc) => declaration.kfunc(&kfunc),
            None => {}
        }
        if let Some(condition) = args.value::<String>("--when")? {
            declaration.when(&condition);
        }
        if let Some(milliseconds) = args.value("--tick")? {
            declaration.tick(milliseconds);
        }
        self.rows = args.flag("--rows");
        self.every = args.value("--every")?.unwrap_or(u64::MAX);
        self.spin = args.value("--spin")?.unwrap_or_default();
        Ok(())
    }

    fn on_batch<'a>(&mut self, batch: &Batch<'a, Self>, out: &mut Output<'a>) -> Result<(), String> {
        self.lost += batch.lost();
        batch.for_each(out, |call, out| self.on(call, out));
        Ok(())
    }

    fn on(&mut self, call: &Call, out: &mut Output) {
        self.events += 1;
        self.sum += u64::from(call.pid);
        for turn in 0..self.spin {
            black_box(turn);
        }
        if self.rows {
            out.forward();
        }
        if self.events.is_multiple_of(self.every) {
            self.total(out);
        }
    }

    fn stop(&mut self, out: &mut Output) {
        self.total(out);
    }
}

impl Calls {
    fn total(&self, out: &mut Output) {
        out.new_row("total").column("events", self.events).column("lost", self.lost).column("sum", self.sum).send();
    }
}

porthole_guest::register!(Calls);
