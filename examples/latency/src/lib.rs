//! How long calls of functions take: a summary for each function, or a row for each call that took long.
//!
//! The kernel keeps when a call began, and sends one event when it returns (`duration`). The handler sorts durations
//! into buckets, see [`spread`].

mod spread;

use std::collections::BTreeMap;

use porthole_guest::prelude::*;

use spread::Spread;

/// A function has returned. Which ones is for the arguments to say.
#[derive(Event)]
#[probe(attach = "uretprobe:libc:getaddrinfo")]
struct Call {
    /// Its attach point, of which rows show the name.
    #[expr("probe")]
    function: i64,
    pid: u32,
    comm: Comm,
    duration: u64,
}

#[derive(Default)]
struct Latency {
    /// Whether each call has a row.
    each: bool,
    spreads: BTreeMap<i64, Spread>,
}

impl Plugin for Latency {
    type Event<'a> = Call;

    fn declare(&mut self, args: &mut Args, declaration: &mut Declaration) -> Result<(), String> {
        let over = args.value::<u64>("--over")?;
        if let Some(microseconds) = over {
            let Some(nanoseconds) = microseconds.checked_mul(1000).filter(|ns| i64::try_from(*ns).is_ok()) else {
                return Err(format!("--over: {microseconds} microseconds are too many"));
            };
            declaration.when(&format!("duration > {nanoseconds}"));
        }
        self.each = over.is_some();
        match args.value("--every")? {
            Some(_) if self.each => return Err("--every is for summaries, and with --over there are none".to_owned()),
            Some(milliseconds) => declaration.tick(milliseconds),
            None => {}
        }
        // Added last, so that it is asked first: of other processes, not even the return is traced then.
        if let Some(pid) = args.value::<u32>("--pid")? {
            declaration.when(&format!("pid == {pid}"));
        }
        let functions = args.rest();
        if let (Some(probe), false) = (declaration.probe("call"), functions.is_empty()) {
            probe.attach = functions;
        }
        Ok(())
    }

    fn on(&mut self, call: &Call, out: &mut Output) {
        if self.each {
            out.row(call);
        } else {
            self.spreads.entry(call.function).or_default().add(call.duration);
        }
    }

    fn on_tick(&mut self, _: u64, out: &mut Output) -> Result<(), String> {
        self.summarise(out);
        Ok(())
    }

    fn stop(&mut self, out: &mut Output) {
        self.summarise(out);
    }
}

impl Latency {
    /// A row for each function that has been called since the last time.
    fn summarise(&mut self, out: &mut Output) {
        for (function, spread) in std::mem::take(&mut self.spreads) {
            out.new_row("call")
                .column("function", function)
                .column("calls", spread.count())
                .column("mean", spread.mean())
                .column("p50", spread.below(50))
                .column("p90", spread.below(90))
                .column("p99", spread.below(99))
                .column("max", spread.max())
                .send();
        }
    }
}

porthole_guest::register!(Latency);

#[cfg(test)]
mod tests {
    use super::*;
    use porthole_guest::Step;
    use porthole_guest::testing::{NewBatch, Run, Sent, declare};

    fn call(batch: &mut NewBatch, time_ns: u64, function: i64, duration: u64) {
        let fields =
            [("function", function.into()), ("pid", 7u32.into()), ("comm", "sh".into()), ("duration", duration.into())];
        batch.event("call", time_ns, 0, &fields);
    }

    fn summary(function: i64, [calls, mean, p50, p90, p99, max]: [u64; 6]) -> Sent {
        let columns = [
            ("function", function.into()),
            ("calls", calls.into()),
            ("mean", mean.into()),
            ("p50", p50.into()),
            ("p90", p90.into()),
            ("p99", p99.into()),
            ("max", max.into()),
        ];
        Sent::row("call", None, &columns)
    }

    #[test]
    fn arguments_say_which_calls() {
        let declaration =
            declare::<Latency>(&["--pid", "7", "kretprobe:vfs_read", "--over=5", "uretprobe:libc:read"]).unwrap();
        let [probe] = &declaration.probes[..] else { panic!("{declaration:?}") };
        assert_eq!(probe.attach, ["kretprobe:vfs_read", "uretprobe:libc:read"]);
        assert_eq!(probe.body[..2], [Step::When("pid == 7".into()), Step::When("duration > 5000".into())]);
        assert_eq!(declare::<Latency>(&[]).unwrap().probes[0].attach, ["uretprobe:libc:getaddrinfo"]);
        assert_eq!(declare::<Latency>(&["--every", "500"]).unwrap().tick, Some(500));
        for wrong in [&["--over=soon"][..], &["--over=99999999999999999"], &["--over=5", "--every=1000"], &["--what"]] {
            assert!(declare::<Latency>(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn functions_are_summed_up_at_ticks_and_in_the_end() {
        let mut run = Run::<Latency>::start(&["--every", "1000"]).unwrap();
        let sent = run.batch(|batch| {
            (1..=3).for_each(|n| call(batch, n, 2, n));
            call(batch, 4, 1, 1_000_000);
        });
        assert_eq!(sent.unwrap(), []);
        let first =
            [summary(1, [1, 1_000_000, 1_000_000, 1_000_000, 1_000_000, 1_000_000]), summary(2, [3, 2, 2, 3, 3, 3])];
        assert_eq!(run.tick(1).unwrap(), first);
        assert_eq!(run.tick(2).unwrap(), []);
        run.batch(|batch| call(batch, 5, 2, 7)).unwrap();
        assert_eq!(run.stop(), [summary(2, [1, 7, 7, 7, 7, 7])]);
    }

    #[test]
    fn calls_that_took_long_have_rows() {
        let mut run = Run::<Latency>::start(&["--over=5"]).unwrap();
        let sent = run.batch(|batch| call(batch, 9000, 1, 6000)).unwrap();
        let columns =
            [("function", 1i64.into()), ("pid", 7u32.into()), ("comm", "sh".into()), ("duration", 6000u64.into())];
        assert_eq!(sent, [Sent::row("call", Some(9000), &columns)]);
        assert_eq!(run.stop(), []);
    }
}
