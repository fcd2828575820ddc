//! A plugin that misbehaves as its arguments say.
//!
//! Without any it behaves: a row for each `getppid`. Three arguments choose what else it does while it runs:
//!
//! * `--in HANDLER`: `declare`, `start`, `on-events`, `on-tick` or `stop`;
//! * `--do DEED`: see [`Hostile::misbehave`];
//! * `--text TEXT`: what it says there.
//!
//! The others change the declaration: first `--attach A,B`, `--when EXPRESSION`, `--value EXPRESSION` (of a second
//! field, `value`), `--fields "A = EXPRESSION; B = EXPRESSION"` (of more fields), `--name NAME` (of the probe),
//! `--tick MILLISECONDS` and `--comm NAME` (only of threads of this name); then `--value-bytes N` (an expression that
//! long), `--value-depth N` (so many parentheses), `--twice probe|field|bind`, and `--probes N` (as many copies, with
//! names of their own).

mod reach;

use std::hint::black_box;
use std::process::abort;

use porthole_guest::Probe;
use porthole_guest::bindings::porthole::trace::declarations::{Binding, Event as Emit, Field, Step};
use porthole_guest::prelude::*;

#[derive(Event)]
#[probe(attach = "tracepoint:syscalls:sys_enter_getppid")]
struct Call {
    pid: u32,
}

#[derive(Default)]
struct Hostile {
    handler: String,
    deed: String,
    text: String,
    events: u64,
    lost: u64,
}

impl Plugin for Hostile {
    type Event<'a> = Call;

    fn declare(&mut self, args: &mut Args, declaration: &mut Declaration) -> Result<(), String> {
        self.handler = args.value("--in")?.unwrap_or_default();
        self.deed = args.value("--do")?.unwrap_or_default();
        self.text = args.value("--text")?.unwrap_or_else(|| "as it was told to".to_owned());
        if self.handler == "on-tick" {
            declaration.tick(10);
        }
        distort(args, declaration)?;
        self.misbehave("declare", &mut Output::default())
    }

    fn start(&mut self, out: &mut Output) -> Result<(), String> {
        self.misbehave("start", out)
    }

    fn on_batch<'a>(&mut self, batch: &Batch<'a, Self>, out: &mut Output<'a>) -> Result<(), String> {
        self.lost += batch.lost();
        batch.for_each(out, |call, out| self.on(call, out));
        self.misbehave("on-events", out)
    }

    fn on(&mut self, _: &Call, out: &mut Output) {
        self.events += 1;
        out.forward();
    }

    fn on_tick(&mut self, _: u64, out: &mut Output) -> Result<(), String> {
        self.misbehave("on-tick", out)
    }

    fn stop(&mut self, out: &mut Output) {
        // It cannot fail otherwise.
        if self.misbehave("stop", out).is_err() {
            abort();
        }
    }
}

impl Hostile {
    /// Does its deed, if this is where to do it.
    fn misbehave(&self, handler: &str, out: &mut Output) -> Result<(), String> {
        if handler != self.handler {
            return Ok(());
        }
        match &*self.deed {
            // The instruction `unreachable`.
            "trap" => abort(),
            "loop" => loop {
                black_box(());
            },
            "allocate" => {
                let mut all = Vec::new();
                loop {
                    all.push(black_box(vec![1u8; 1 << 20]));
                }
            }
            "flood" => loop {
                out.new_row("flood").column("text", "x".repeat(1 << 10).as_str()).send();
            },
            "fail" => return Err(self.text.clone()),
            "finish" => out.finish(),
            "give-up" => out.fail(&self.text),
            "panic" => panic!("{}", self.text),
            "log" => out.log(Level::Warning, &self.text),
            "row" => out.new_row("said").column(&self.text, self.text.as_str()).send(),
            // No row can have such a name.
            "name" => out.new_row(&self.text).send(),
            "count" => out.new_row("count").column("events", self.events).column("lost", self.lost).send(),
            "reach" => reach::reach(&self.text, out),
            deed => return Err(format!("'{deed}' is none of its deeds")),
        }
        Ok(())
    }
}

/// Changes the declaration as the arguments say.
fn distort(args: &mut Args, declaration: &mut Declaration) -> Result<(), String> {
    if let Some(comm) = args.value::<String>("--comm")? {
        declaration.when(&format!("comm == {}", quote(&comm)));
    }
    if let Some(milliseconds) = args.value("--tick")? {
        declaration.tick(milliseconds);
    }
    if let Some(condition) = args.value::<String>("--when")? {
        declaration.when(&condition);
    }
    let mut value = args.value::<String>("--value")?;
    if let Some(bytes) = args.value::<usize>("--value-bytes")? {
        value = Some(format!("1{}", "+1".repeat(bytes / 2)));
    }
    if let Some(depth) = args.value::<usize>("--value-depth")? {
        value = Some(format!("{}1{}", "(".repeat(depth), ")".repeat(depth)));
    }
    let probe = &mut declaration.probes[0];
    if let Some(points) = args.value::<String>("--attach")? {
        probe.attach = points.split(',').map(str::to_owned).collect();
    }
    if let Some(name) = args.value("--name")? {
        probe.name = name;
    }
    if let Some(value) = value {
        fields(probe).push(Field { name: "value".to_owned(), value });
    }
    for field in args.value::<String>("--fields")?.unwrap_or_default().split(';').filter(|field| !field.is_empty()) {
        let (name, value) = field.split_once('=').ok_or("--fields: NAME = EXPRESSION is expected")?;
        fields(probe).push(Field { name: name.trim().to_owned(), value: value.trim().to_owned() });
    }
    match args.value::<String>("--twice")?.as_deref() {
        Some("probe") => declaration.probes.push(declaration.probes[0].clone()),
        Some("field") => {
            let fields = fields(probe);
            fields.push(fields[0].clone());
        }
        Some("bind") => {
            let bind = Step::Bind(Binding { name: "mine".to_owned(), value: "pid".to_owned() });
            probe.body.splice(0..0, [bind.clone(), bind]);
        }
        _ => {}
    }
    if let Some(count) = args.value::<usize>("--probes")? {
        let probe = declaration.probes[0].clone();
        let copy = |n: usize| Probe { name: format!("{}_{n}", probe.name), ..probe.clone() };
        declaration.probes = (0..count).map(copy).collect();
    }
    Ok(())
}

/// The fields of a probe's event.
fn fields(probe: &mut Probe) -> &mut Vec<Field> {
    match probe.body.last_mut() {
        Some(Step::Emit(Emit { fields, .. })) => fields,
        // The SDK puts it there.
        _ => abort(),
    }
}

porthole_guest::register!(Hostile);
