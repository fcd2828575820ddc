//! A plan to IR: one function for each attach point of each probe.
//!
//! A program counts a hit, goes through its steps, and leaves by exactly one of three ways, each of which counts:
//! *filtered* (a `when` was false or absent), *emitted* (the record is in the ring), *lost* (the ring was full). So
//! hits = filtered + emitted + lost holds at any time at which no program runs. Reads that fail are counted beside that
//! (`fault`): a hit may meet several, and be any of the three.
//!
//! A program keeps its counters in an entry of its own of a per-CPU map. The kernel never runs a program while the same
//! one runs on the same CPU (kernel/trace/bpf_trace.c: bpf_trace_run, trace_call_bpf; it counts what it skips for that
//! as recursion misses), so plain additions lose nothing. For the same reason the scratch in which long records are put
//! together is safe. Programs at places in user memory are another matter (`lanes`).
//!
//! The verifier follows every path, and takes two paths that meet for one only where what it knows of the registers
//! agrees. A value that is a known 1 on one path and a known 0 on the other would double its work, and again at the
//! next such value. So where paths meet, such values are made of an *unknown zero*, read from memory that always holds
//! 0, and a pointer never meets a 0 in one register. For the same reason nothing is learned of what lives on: a test of
//! a bound value, or of what a call has given once and for all, is a test of a *fresh* copy, the value plus the unknown
//! zero. Without it twenty values that may be absent, each used twice, were a million paths.

mod bytes;
mod emit;
mod fault;
mod held;
mod iter;
mod kfunc;
mod known;
mod lanes;
mod path;
mod range;
mod session;
mod stack;
mod text;
mod value;

use std::collections::HashMap;

use crate::ir::{
    Address, AluOp, BlockId, Callee, Cond, Function, FunctionBuilder, Map, MapId, MapKind, Module, Reason, ReasonId,
    Register, Size, SlotId, Space,
};
use crate::plan::layout::Schema;
use crate::plan::{Node, NodeKind, Plan, PlanStep, PointPlan, Shown, Span, Typed};
use bytes::{Octets, Place};
use fault::Faults;
use held::{Exit, Holding};
pub use kfunc::MAX_STEPS;
use known::Known;
pub use path::STEPS;
use range::Range;

/// The map of events: a ring buffer.
pub const EVENTS: MapId = MapId(0);
/// The map of counters: for each program, by its number, [`Counter`]s of each CPU.
pub const COUNTERS: MapId = MapId(1);
/// The map in which records with texts are put together: for each program that has some, by a number of its own.
const SCRATCH: MapId = MapId(2);
/// Bytes of scratch of one program at most (kernel/bpf/arraymap.c: PCPU_MIN_UNIT_SIZE).
pub const MAX_SCRATCH: u32 = 32 * 1024;

/// Bytes of texts that a program compares with one another at most; of two, those of the shorter, and of a path
/// [`path::COMPARED`]. See [`MAX_OPERATIONS`].
pub const MAX_COMPARED: u32 = 16 * 1024;
/// Operations of a program at most, so that the verifier can follow each: it keeps in mind at most 8192 branches that
/// it has still to look at (kernel/bpf/verifier.c: BPF_COMPLEXITY_LIMIT_JMP_SEQ). An operation is one branch at most,
/// and a comparison two for each 8 bytes. Most operations become one to three instructions, none many more, so jumps,
/// which reach 32767 instructions far, reach all of a program.
pub const MAX_OPERATIONS: usize = 4096;
/// Paths that the verifier follows at most, times the operations of a program, those of loops over texts and
/// directories as often as it goes through them. What a kfunc has given and a `bind` step keeps may be null on some
/// paths and not on others, and owned on these alone, so the verifier takes them for one nowhere: each such value
/// doubles them.
pub const MAX_PATHS: usize = 1 << 18;
/// Operations of all programs at most: what one plugin may keep the compiler busy with.
pub const MAX_ALL_OPERATIONS: usize = 1 << 18;

/// The counters of a program: u64 each, at 8 times their number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    Hits = 0,
    Filtered = 1,
    Emitted = 2,
    Lost = 3,
    /// Reads that failed, whatever became of the hit.
    Faults = 4,
}

/// How many [`Counter`]s there are.
pub const COUNTER_COUNT: usize = 5;
/// Behind the counters stands a u64 that is always 0.
const ZERO_AT: i32 = 8 * COUNTER_COUNT as i32;
/// And behind that a u64 through which pointers go that the verifier is to forget.
const FORGET_AT: i32 = ZERO_AT + 8;
/// And behind that, where there are programs that need them, the marks of lanes: u64 each.
const COUNTERS_END: i32 = FORGET_AT + 8;

/// Helpers, by their numbers in include/uapi/linux/bpf.h.
mod helper {
    pub const MAP_LOOKUP_ELEM: u32 = 1;
    pub const GET_SMP_PROCESSOR_ID: u32 = 8;
    pub const GET_CURRENT_PID_TGID: u32 = 14;
    pub const GET_CURRENT_UID_GID: u32 = 15;
    pub const GET_CURRENT_COMM: u32 = 16;
    pub const GET_STACK: u32 = 67;
    pub const GET_CURRENT_CGROUP_ID: u32 = 80;
    pub const PROBE_READ_USER: u32 = 112;
    pub const PROBE_READ_KERNEL: u32 = 113;
    pub const PROBE_READ_USER_STR: u32 = 114;
    pub const PROBE_READ_KERNEL_STR: u32 = 115;
    pub const KTIME_GET_BOOT_NS: u32 = 125;
    pub const SEQ_WRITE: u32 = 127;
    pub const RINGBUF_OUTPUT: u32 = 130;
    pub const DYNPTR_FROM_MEM: u32 = 197;
    pub const GET_CURRENT_TASK_BTF: u32 = 158;
    pub const GET_ATTACH_COOKIE: u32 = 174;
    pub const GET_FUNC_ARG: u32 = 183;
    pub const GET_FUNC_RET: u32 = 184;
}

/// IR, and which function serves which attach point: the function with number n keeps its counters at n.
#[derive(Clone, Debug)]
pub struct Ir {
    pub module: Module,
    pub programs: Vec<ProgramOf>,
}

/// The attach point that a function serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProgramOf {
    /// Index into [`Plan::probes`].
    pub probe: usize,
    /// Index into [`crate::plan::ProbePlan::points`].
    pub point: usize,
}

/// A probe asks for more than a program can hold, or all of them for more than is compiled in reasonable time, although
/// each part is within bounds.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LowerError {
    #[error(
        "probe `{probe}`: its texts need {bytes} bytes in the kernel at once, and {MAX_SCRATCH} is the most; bound them: `str(pointer, 100)`"
    )]
    Texts { probe: String, bytes: u32 },
    #[error(
        "probe `{probe}`: it compares texts of {bytes} bytes in all with one another, each path counted as {}, and {MAX_COMPARED} is the most; bound them: `str(pointer, 100)`",
        path::COMPARED
    )]
    Comparisons { probe: String, bytes: u32 },
    #[error(
        "probe `{probe}`: {values} of the values that it binds are a kfunc's and may be null, and each doubles what the kernel's verifier has to follow; `when NAME` behind such a `bind` goes on only where there is one"
    )]
    Held { probe: String, values: u32 },
    #[error(
        "probe `{probe}`: it takes more than {MAX_OPERATIONS} operations; leave some to the plugin's handlers, or use several probes"
    )]
    Operations { probe: String },
    #[error(
        "the declaration: its programs, one for each attach point, take more than {MAX_ALL_OPERATIONS} operations; use fewer attach points, or leave more to the handlers"
    )]
    AllOperations,
}

/// Makes IR of a plan. `plugin` names the plugin in reasons; `ring` is the ring buffer's bytes: a power of two, and a
/// multiple of the page size.
pub fn lower(plan: &Plan, plugin: &str, ring: u32) -> Result<Ir, LowerError> {
    let mut module = Module::default();
    let mut programs = Vec::new();
    let (mut scratch_entries, mut scratch_bytes, mut operations) = (0, 0, 0);
    for (probe, p) in plan.probes.iter().enumerate() {
        for (point, body) in p.programs() {
            let program = Program {
                number: programs.len() as u32,
                scratch: scratch_entries,
                name: format!("{}_{point}", p.name),
                // Nobody has checked a file's name, nor what control characters an expression holds: reasons are for
                // terminals and the kernel's log.
                file: format!("{}:{}", Shown(plugin), p.name),
            };
            let schema = &plan.schemas[usize::from(p.schema)];
            let lowered = Lower::new(&program, body, schema, &mut module).run();
            lowered.check(&p.name)?;
            operations += lowered.operations;
            if operations > MAX_ALL_OPERATIONS {
                return Err(LowerError::AllOperations);
            }
            scratch_entries += if lowered.scratch > 0 { lanes::entries(body) } else { 0 };
            scratch_bytes = scratch_bytes.max(lowered.scratch);
            module.functions.push(lowered.function);
            programs.push(ProgramOf { probe, point });
        }
    }
    let map = |name: &str, kind, key_size, value_size, max_entries| Map {
        name: name.to_owned(),
        kind,
        key_size,
        value_size,
        max_entries,
    };
    let reentered = plan.probes.iter().flat_map(|p| &p.points).any(lanes::is_reentered);
    let marks = if reentered { 8 * lanes::LANES } else { 0 };
    module.maps = vec![
        map("events", MapKind::RingBuffer, 0, 0, ring),
        map("counters", MapKind::PerCpuArray, 4, COUNTERS_END as u32 + marks, programs.len() as u32),
    ];
    if scratch_entries > 0 {
        module.maps.push(map("scratch", MapKind::PerCpuArray, 4, scratch_bytes.next_multiple_of(8), scratch_entries));
    }
    Ok(Ir { module, programs })
}

/// A function, and what it needs.
struct Lowered {
    function: Function,
    /// Bytes of scratch.
    scratch: u32,
    /// Bytes of texts that are compared with one another.
    compared: u32,
    operations: usize,
    /// Bound values that are owned, or null.
    held: u32,
    /// Its operations, each as often as such values double it: see [`MAX_PATHS`].
    paths: usize,
}

impl Lowered {
    fn check(&self, probe: &str) -> Result<(), LowerError> {
        let probe = probe.to_owned();
        if self.scratch > MAX_SCRATCH {
            return Err(LowerError::Texts { probe, bytes: self.scratch });
        }
        if self.compared > MAX_COMPARED {
            return Err(LowerError::Comparisons { probe, bytes: self.compared });
        }
        if self.operations > MAX_OPERATIONS {
            return Err(LowerError::Operations { probe });
        }
        if self.held > 0 && self.paths > MAX_PATHS {
            return Err(LowerError::Held { probe, values: self.held });
        }
        Ok(())
    }
}

/// What tells one program from the others.
struct Program {
    number: u32,
    /// The scratch entry that it has if it needs one.
    scratch: u32,
    name: String,
    file: String,
}

/// One function under construction.
struct Lower<'a> {
    program: &'a Program,
    body: &'a PointPlan,
    schema: &'a Schema,
    b: FunctionBuilder,
    /// What all functions share.
    module: &'a mut Module,
    /// Texts that nodes were made from, each with its step.
    sources: Vec<(u32, String)>,
    /// That of the nodes at hand.
    source: usize,
    explained: HashMap<(usize, Span), ReasonId>,
    context: Register,
    counters: Register,
    /// A 0 of which the verifier does not know that it is one.
    zero: Register,
    /// Where a `when` that does not hold goes.
    filtered: BlockId,
    /// 8 bytes to read into.
    word: SlotId,
    /// 8 more, for what is read through a pointer that has been read into the first.
    other_word: Option<SlotId>,
    /// The one of the two that was read into last.
    last_word: SlotId,
    faults: Faults,
    holding: Holding,
    /// 16 bytes for a thread's name that is compared.
    comm: Option<SlotId>,
    /// Pieces of the stack that a call or a walk has needed and does not any more, by their bytes.
    spare: HashMap<u32, Vec<SlotId>>,
    /// Places for addresses that are compared, and how many of them hold one now.
    octets: Vec<SlotId>,
    octets_used: usize,
    /// 16 bytes for each structure that is passed in two registers, by these.
    gathered: HashMap<[u32; 2], SlotId>,
    known: Known,
    locals: Vec<Local>,
    /// The objects at hand of the walks that this stands in.
    items: Vec<Register>,
    /// When the function was entered, where `duration` is asked for.
    begun: Register,
    /// How many steps all walks of this hit have made together, where the body has walks.
    walked: Register,
    /// What marks the record where one was cut short.
    walks_cut: Register,
    scratch: Scratch,
    /// The part of the scratch that has been taken, where it must be.
    lane: Option<lanes::Lane>,
    /// Bytes of texts that have been compared with one another.
    compared: u32,
}

/// What a `bind` step has left.
#[derive(Clone, Copy)]
enum Local {
    /// `present`: a register that is 0 where the value is absent; none: it never is. `plain`: it is a number to the
    /// verifier, whatever it is to us.
    Value {
        value: Register,
        present: Option<Register>,
        plain: bool,
        range: Range,
    },
    Text {
        at: u32,
        length: Register,
        cut: Register,
        present: Option<Register>,
    },
    /// An address.
    Octets {
        at: u32,
        present: Option<Register>,
    },
}

/// The program's scratch: the record first, then what `bind` steps keep, then what lives for one comparison.
#[derive(Default)]
struct Scratch {
    base: Option<Register>,
    /// Bytes in use now.
    used: u32,
    /// Bytes that have been in use at once.
    most: u32,
}

impl<'a> Lower<'a> {
    fn new(program: &'a Program, body: &'a PointPlan, schema: &'a Schema, module: &'a mut Module) -> Lower<'a> {
        let mut b = FunctionBuilder::new(program.name.clone(), Some(body.section()), 1);
        let (context, counters, zero) = (b.parameter(0), b.register(), b.register());
        let (filtered, word) = (b.block(), b.slot(8));
        Lower {
            program,
            body,
            schema,
            b,
            module,
            explained: HashMap::new(),
            sources: Vec::new(),
            source: 0,
            context,
            counters,
            zero,
            filtered,
            word,
            other_word: None,
            last_word: word,
            faults: Faults::default(),
            holding: Holding::default(),
            comm: None,
            spare: HashMap::new(),
            octets: Vec::new(),
            octets_used: 0,
            gathered: HashMap::new(),
            known: Known::default(),
            locals: Vec::new(),
            items: Vec::new(),
            begun: zero,
            walked: zero,
            walks_cut: zero,
            scratch: Scratch::default(),
            lane: None,
            compared: 0,
        }
    }

    fn run(mut self) -> Lowered {
        self.explain(0, &self.body.attach.to_string(), Span::default());
        self.leave_behind_the_last();
        let counters = self.map_value(COUNTERS, self.program.number);
        self.b.copy(self.counters, counters);
        if let Some(session) = &self.body.session {
            self.begin(session);
        }
        self.count(Counter::Hits);
        self.renew_zero();
        if self.body.walks {
            (self.walked, self.walks_cut) = (self.b.register(), self.b.register());
            self.b.copy(self.walked, self.zero);
            self.b.copy(self.walks_cut, self.zero);
        }
        self.lane = self.take_lane();
        let body = self.body;
        for step in &body.steps {
            if self.b.operations() > MAX_OPERATIONS {
                // It is refused, however it goes on.
                break;
            }
            match step {
                PlanStep::Bind { value, .. } => self.bind(value),
                PlanStep::When(condition) => self.when(condition),
                PlanStep::Emit(fields) => self.emit(fields),
            }
        }
        self.b.enter(self.filtered);
        self.explain(0, &self.body.attach.to_string(), Span::default());
        self.count(Counter::Filtered);
        self.leave_lane();
        self.b.ret(0);
        self.count_faults();
        self.write_ways_out();
        let operations = self.b.operations();
        self.count_paths();
        let (held, paths) = (self.holding.unknown(), self.holding.paths);
        Lowered {
            function: self.b.finish(),
            scratch: self.scratch.most,
            compared: self.compared,
            operations,
            held,
            paths,
        }
    }

    fn when(&mut self, condition: &Typed) {
        self.prepare(condition);
        // All that is held is given back there.
        let (exit, depth) = (Exit::to(self.filtered, 0), self.depth());
        self.open_section(&condition.node);
        let filtered = self.filter();
        self.go_on_where(&condition.node, filtered, &exit);
        self.close_section(depth);
        self.count_paths();
        for local in condition.node.never_null_where_true() {
            if let Some(Local::Value { value, .. }) = self.locals.get(local as usize) {
                self.holding.is_there(*value);
                self.known.learn_there(*value);
            }
        }
    }

    /// Goes on where the condition holds, and knows there what was found out for it.
    fn go_on_where(&mut self, condition: &Node, filtered: BlockId, exit: &Exit) {
        if let NodeKind::And(left, right) = &condition.kind {
            self.go_on_where(left, filtered, exit);
            return self.go_on_where(right, filtered, exit);
        }
        let holds = self.b.block();
        self.branch_on(condition, holds, filtered, exit);
        self.b.enter(holds);
    }

    fn bind(&mut self, value: &Typed) {
        self.prepare(value);
        let depth = self.depth();
        let (absent, join) = (self.b.block(), self.b.block());
        let exit = self.exit_to(absent);
        let (present, result, cut) = (self.b.register(), self.b.register(), self.b.register());
        let ty = &value.node.ty;
        let kept = (text::is_tail(&value.node) || ty.is_octets()).then(|| {
            self.open_scratch();
            self.reserve(text::room(&value.node))
        });
        self.open_section(&value.node);
        match kept {
            None => {
                let computed = self.value(&value.node, &exit);
                if emit::tells_paths_apart(&value.node, exit.used()) {
                    self.b.alu_to(AluOp::Add, result, computed, self.zero);
                } else {
                    self.b.copy(result, computed);
                }
            }
            Some(at) if ty.is_octets() => {
                let place = Place::Scratch(self.scratch_at(at));
                self.octets_into(&value.node, Octets::new(place, 0, ty), &exit);
            }
            Some(at) => {
                let to = self.scratch_at(at);
                let found = self.text_into(&value.node, to, Space::MapValue, &exit);
                self.b.copy(result, found.length);
                self.b.copy(cut, found.cut);
            }
        }
        self.close_section(depth);
        self.b.alu_to(AluOp::Add, present, self.zero, 1);
        self.b.jump(join);
        if exit.used() {
            self.b.enter(exit.block());
            self.b.copy(present, self.zero);
            match kept {
                // As a field that is cleared: before Linux 6.8, the bounds of what is kept on the stack tell the two
                // paths apart for good.
                None if ty.is_number() => self.b.copy(result, self.zero),
                _ => self.b.set(result, 0),
            }
            self.b.set(cut, 0);
            self.b.jump(join);
            self.meet(&exit.known());
        }
        self.b.enter(join);
        self.count_paths();
        self.keep_held(depth, result, exit.used());
        let present = exit.used().then_some(present);
        let local = match kept {
            None => {
                let (plain, range) = (self.is_plain(&value.node), self.range(&value.node));
                Local::Value { value: result, present, plain, range }
            }
            Some(at) if ty.is_octets() => Local::Octets { at, present },
            Some(at) => {
                let length = self.bounded(result, text::max(&value.node));
                Local::Text { at, length, cut, present }
            }
        };
        self.locals.push(local);
    }

    /// Makes `typed` the expression at hand, and the scratch ready if it needs it.
    fn prepare(&mut self, typed: &Typed) {
        self.source = self.explain(typed.step, &typed.text, typed.node.span);
        if text::needs_scratch(&typed.node) {
            self.open_scratch();
        }
    }

    /// Finds the scratch, unless that has been done. The record's place is always the first.
    fn open_scratch(&mut self) {
        if self.scratch.base.is_some() {
            return;
        }
        let base = match self.lane {
            Some(lane) => lane.base,
            None => self.map_value(SCRATCH, self.program.scratch),
        };
        self.scratch.base = Some(base);
        let record = emit::record_room(self.schema, self.body);
        self.reserve(record);
    }

    /// Bytes of the scratch, free until `release`.
    fn reserve(&mut self, bytes: u32) -> u32 {
        let at = self.scratch.used;
        self.scratch.used += bytes.next_multiple_of(8);
        self.scratch.most = self.scratch.most.max(self.scratch.used);
        at
    }

    /// Gives back all that was reserved since `used` was [`Scratch::used`].
    fn release(&mut self, used: u32) {
        self.scratch.used = used;
    }

    /// The address of this part of the scratch.
    fn scratch_at(&mut self, at: u32) -> Register {
        self.open_scratch();
        match self.scratch.base {
            Some(base) if at == 0 => base,
            // A front end cannot reserve more than an i32: `lower` refuses far less.
            Some(base) => self.b.alu(AluOp::Add, base, at as i32),
            None => self.b.constant(0),
        }
    }

    /// The address of a per-CPU map's value; the program ends where there is none, which cannot be.
    fn map_value(&mut self, map: MapId, index: u32) -> Register {
        self.b.store(Address::slot(self.word, 0), index as i32, Size::B4);
        let (map, key) = (self.b.map_address(map), self.b.address_of(self.word, 0));
        let value = self.b.call(Callee::Helper(helper::MAP_LOOKUP_ELEM), &[map.into(), key.into()]);
        let (missing, found) = (self.b.block(), self.b.block());
        let leaving = self.releasing(0, missing);
        self.b.branch(Cond::Eq, value, 0, leaving, found);
        self.b.enter(missing);
        self.b.ret(0);
        self.b.enter(found);
        value
    }

    fn count(&mut self, counter: Counter) {
        self.add_one(Address::at(self.counters, Space::MapValue, 8 * counter as i32));
    }

    /// A zero of which the verifier knows nothing, and has not seen that it is the one that others are made of.
    fn unknown_zero(&mut self) -> Register {
        self.b.load(Address::at(self.counters, Space::MapValue, ZERO_AT), Size::B8)
    }

    /// What the verifier has learned of the zero it has not learned of this one. What is a copy of the zero, or a
    /// number more, is a way to learn of it.
    fn renew_zero(&mut self) {
        let zero = self.unknown_zero();
        self.b.copy(self.zero, zero);
    }

    /// The value, of which the verifier knows nothing, and what it learns of it by a test it learns of nothing else.
    fn fresh(&mut self, value: Register) -> Register {
        self.b.alu(AluOp::Add, value, self.zero)
    }

    fn helper(&mut self, id: u32, arguments: &[crate::ir::Operand]) -> Register {
        self.b.call(Callee::Helper(id), arguments)
    }

    /// Makes this the reason of the operations to come; the number of the text.
    fn explain(&mut self, step: u32, text: &str, span: Span) -> usize {
        let known = self.sources.iter().rposition(|(of, known)| *of == step && known == text);
        let source = known.unwrap_or_else(|| {
            self.sources.push((step, text.to_owned()));
            self.sources.len() - 1
        });
        self.explain_part(source, span);
        source
    }

    fn explain_part(&mut self, source: usize, span: Span) {
        let reasons = &mut self.module.reasons;
        let id = *self.explained.entry((source, span)).or_insert_with(|| {
            let (line, text) = &self.sources[source];
            let (file, text) = (self.program.file.clone(), Shown(text).to_string());
            reasons.push(Reason { file, line: *line, column: span.start + 1, text });
            ReasonId(reasons.len() as u32 - 1)
        });
        self.b.because(Some(id));
    }
}
