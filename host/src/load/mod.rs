//! libbpf: open, load, attach, detach.
//!
//! [`load`] makes the kernel check the programs and create the maps; [`Loaded::attach`] makes them fire; dropping what
//! either returns undoes it. Everything is held by file descriptors and nothing is pinned, so nothing outlives the
//! process, however it ends.
//!
//! A program that the verifier refuses is a fault of Porthole: what the checker accepts, the verifier accepts.

mod iter;
mod kprobe;
mod leftover;
mod log;
mod offered;
pub(crate) mod perf;
mod perf_event;
mod process;
mod refusal;
mod uprobe;

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use libbpf_rs::{Link, MapCore, MapFlags, Object, ObjectBuilder, ProgramMut};

use crate::compile::Compiled;
use crate::events::{Ring, RingError};
use crate::kernel::KernelFacts;
use crate::lower::{COUNTER_COUNT, Counter, ProgramOf};
use crate::plan::{AttachPoint, FunctionKind, Plan};

use iter::Iterated;
pub use iter::Walk;
pub use leftover::Leftover;
pub use refusal::{Refusal, report_directories};

/// Links that are closed by one thread at most, one after the other: closing one waits for the kernel, up to 100 ms.
const DETACH_THREADS: usize = 32;
/// How often counters are read before they are taken as they are.
const READS: u32 = 1000;

/// Why programs could not be loaded, attached or read.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("the kernel refuses BPF: {} missing (`porthole doctor` tells more)", capabilities(.0))]
    Privileges(Vec<&'static str>),
    /// The verifier refused a program. That is a fault of Porthole.
    #[error("this is a bug of porthole, please report it with what follows: {0}")]
    Refused(Box<Refusal>),
    #[error("the kernel does not load the programs: {source}{}", detail(.log))]
    Load { source: libbpf_rs::Error, log: String },
    /// The verifier refused a program that calls a kfunc which the host knows by a claim.
    #[error(
        "the kernel does not load what calls `{}`: what the plugin claims of it (what releases its result, whether that may be null, whether it may sleep) is likely wrong{}",
        .kfuncs.join("`, `"), detail(.log)
    )]
    Claimed { kfuncs: Vec<String>, log: String },
    /// This kernel has no way to attach there. Nothing has been attached.
    #[error("this kernel does not offer {feature}, so nothing can be attached to {at}: {why}{}", help(.instead))]
    NotOffered { feature: &'static str, at: String, why: String, instead: Option<String> },
    /// The kernel lets no program be bound to that function, not even one that does nothing.
    #[error("{at}: the kernel lets no program attach there ({source})")]
    Bound { at: String, source: io::Error },
    #[error("{at} cannot be attached to: {source}")]
    Attach { at: String, source: io::Error },
    #[error("the walk of {at} ended early: {source}")]
    Walk { at: String, source: io::Error },
    #[error("the programs' counters cannot be read: {0}")]
    Counters(String),
    #[error(transparent)]
    Ring(#[from] RingError),
}

fn capabilities(missing: &[&str]) -> String {
    format!("{} {}", missing.join(" and "), if missing.len() == 1 { "is" } else { "are" })
}

fn help(instead: &Option<String>) -> String {
    instead.as_ref().map(|instead| format!("; {instead}")).unwrap_or_default()
}

fn detail(log: &str) -> String {
    if log.is_empty() { String::new() } else { format!("\n{log}") }
}

/// Programs in the kernel that do not fire yet.
pub struct Loaded {
    object: Object,
    programs: Vec<Named>,
}

/// A program by its name in the object, and the attach point that it serves. Its counters stand at its index.
#[derive(Clone, Debug)]
struct Named {
    name: String,
    of: ProgramOf,
}

/// Programs that fire.
pub struct Attached {
    /// With the index of their probe. Before the object: a link is closed while its program is still there.
    links: Vec<(Link, usize)>,
    /// What closed links told of calls that were not followed, likewise.
    unfollowed: Vec<(u64, usize)>,
    /// The perf events of those links for whose end nobody need wait.
    events: Vec<OwnedFd>,
    iterators: Vec<Iterated>,
    object: Object,
    programs: Vec<Named>,
    points: usize,
    left_out: Vec<LoadError>,
}

/// What became of a probe's hits, all its programs and CPUs together. While no program runs,
/// `hits = filtered + emitted + lost`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// How often it fired.
    pub hits: u64,
    /// How often a `when` was not true.
    pub filtered: u64,
    /// Records in the ring.
    pub emitted: u64,
    /// Records for which the ring had no room.
    pub lost: u64,
    /// Reads that failed.
    pub faults: u64,
    /// How often the kernel skipped the program because it, or one like it, ran already on that CPU; and calls whose
    /// return it could not follow, where it tells them. Not among the hits.
    pub missed: u64,
}

/// Whether this process may load programs at all.
///
/// # Errors
/// [`LoadError::Privileges`], with the capabilities that it lacks.
pub fn check_privileges() -> Result<(), LoadError> {
    let missing = crate::kernel::features::missing_privileges();
    if missing.is_empty() { Ok(()) } else { Err(LoadError::Privileges(missing)) }
}

/// Whether the kernel offers what the attach points of a plan need.
///
/// # Errors
/// [`LoadError::NotOffered`], with what it offers instead.
pub fn check_offered(plan: &Plan, facts: &KernelFacts) -> Result<(), LoadError> {
    offered::check(plan.probes.iter().flat_map(|probe| &probe.points).map(|point| &point.attach), facts)
}

/// Loads the programs of one plugin.
pub fn load(compiled: &Compiled) -> Result<Loaded, LoadError> {
    check_privileges()?;
    let (result, log) = log::capture(|| {
        let mut open = ObjectBuilder::default().open_memory(&compiled.bytes)?;
        open.progs_mut().for_each(|mut program| uprobe::prepare(&mut program));
        open.load()
    });
    match result {
        Ok(object) => {
            let names = compiled.object.functions.iter().map(|f| f.name.clone());
            let programs = names.zip(&compiled.programs).map(|(name, of)| Named { name, of: *of }).collect();
            Ok(Loaded { object, programs })
        }
        Err(source) => Err(refused(compiled, source, &log)),
    }
}

/// Why the kernel has refused. Where that lies in an attach point, it refuses any program there, and that is found out
/// by trying.
fn refused(compiled: &Compiled, source: libbpf_rs::Error, log: &str) -> LoadError {
    if let Some(error) = offered::why_not_loaded(&compiled.points) {
        return error;
    }
    match Refusal::find(compiled, &source, log) {
        Some(_) if !compiled.claimed.is_empty() => {
            LoadError::Claimed { kfuncs: compiled.claimed.clone(), log: log::tail(log) }
        }
        Some(refusal) => {
            tracing::debug!("{log}");
            LoadError::Refused(Box::new(refusal))
        }
        None => LoadError::Load { source, log: log::tail(log) },
    }
}

impl Loaded {
    /// Makes the programs fire: all of them, or none.
    pub fn attach(self, plan: &Plan) -> Result<Attached, LoadError> {
        check_offered(plan, &KernelFacts::running())?;
        let Loaded { object, programs } = self;
        let ring = object.maps().find(|m| m.name() == OsStr::new("events")).map_or(0, |m| m.max_entries());
        let (mut links, mut events, mut iterators) = (Vec::new(), Vec::new(), Vec::new());
        let mut of_probes = Vec::new();
        let (mut points, mut left_out) = (0, Vec::new());
        for program in &programs {
            let probe = &plan.probes[program.of.probe];
            let body = &probe.points[program.of.point];
            let point = &body.attach;
            points += probe.served_by(program.of.point).count();
            let failed = |source| LoadError::Attach { at: point.to_string(), source };
            let found = object.progs_mut().find(|p| p.name() == OsStr::new(&program.name));
            let found = found.ok_or_else(|| failed(io::Error::other("the program is missing")))?;
            match point {
                AttachPoint::Perf(event) => links.extend(perf_event::attach(&found, event).map_err(failed)?),
                AttachPoint::Iter(iter) => {
                    // Half of the ring: the other half is for the plugin's other probes.
                    let room = u64::from(ring) / 2 / plan.largest_record(program.of.probe, body);
                    let iterator = Iterated::new(&found, iter, point.to_string(), room as usize);
                    iterators.push(iterator.map_err(failed)?);
                }
                AttachPoint::User(place) => {
                    links.extend(uprobe::attach(&found, place, body).map_err(failed)?);
                }
                _ if body.shares.is_some() => {
                    let served = probe.served_by(program.of.point);
                    let functions: Vec<_> =
                        served.filter_map(|point| Some((point.function()?, point.number))).collect();
                    let mut refused = Vec::new();
                    let at = kprobe::At::of(body);
                    kprobe::attach_to_all(&found, &functions, at, &mut links, &mut refused).map_err(failed)?;
                    for kprobe::Refused { function, source } in refused {
                        let error = LoadError::Attach { at: function.to_string(), source };
                        if function.matched { left_out.push(error) } else { return Err(error) }
                    }
                }
                _ => match attach(&found, point) {
                    Ok((link, event)) => {
                        links.push(link);
                        events.extend(event);
                    }
                    Err(source) if body.function().is_some_and(|function| function.matched) => {
                        left_out.push(failed(source));
                    }
                    Err(source) => return Err(failed(source)),
                },
            }
            of_probes.resize(links.len(), program.of.probe);
        }
        points -= left_out.len();
        if points == 0
            && let Some(first) = left_out.pop()
        {
            return Err(first);
        }
        let links = links.into_iter().zip(of_probes).collect();
        Ok(Attached { links, unfollowed: Vec::new(), events, iterators, object, programs, points, left_out })
    }
}

/// A link, and its perf event where it has one.
fn attach(program: &ProgramMut<'_>, point: &AttachPoint) -> io::Result<(Link, Option<OwnedFd>)> {
    let event = match point {
        AttachPoint::Tracepoint(format) => Some(perf::open_tracepoint(format.id)?),
        AttachPoint::Function(function) => match function.kind {
            FunctionKind::Kprobe | FunctionKind::Kretprobe => {
                let at_return = function.kind == FunctionKind::Kretprobe;
                Some(perf::open_kprobe(&function.qualified_name(), function.offset, at_return)?)
            }
            FunctionKind::Fentry | FunctionKind::Fexit | FunctionKind::Func | FunctionKind::Lsm => None,
        },
        // `Loaded::attach` deals with the rest.
        AttachPoint::RawTracepoint(_) | AttachPoint::Perf(_) | AttachPoint::Iter(_) | AttachPoint::User(_) => None,
    };
    let link = match &event {
        Some(event) => attach_event(program, event.try_clone()?),
        None if matches!(point, AttachPoint::Function(f) if f.kind == FunctionKind::Lsm) => program.attach_lsm(),
        None => program.attach_trace(),
    };
    Ok((link.map_err(io::Error::other)?, event))
}

fn attach_event(program: &ProgramMut<'_>, event: OwnedFd) -> libbpf_rs::Result<Link> {
    let link = program.attach_perf_event(event.as_raw_fd());
    if link.is_ok() {
        // The link has taken the descriptor over, and closes it.
        std::mem::forget(event);
    }
    link
}

impl Attached {
    /// How many attach points.
    pub fn points(&self) -> usize {
        self.points
    }

    /// Whether the kernel tells which calls it has not followed to their returns.
    pub fn tells_unfollowed(&self) -> bool {
        self.links.iter().all(|(link, _)| link_misses(link).is_some())
    }

    /// What patterns match and the kernel does not take, with what it says.
    pub fn left_out(&self) -> &[LoadError] {
        &self.left_out
    }

    /// Whether nothing ever fires by itself: all attach points are iterators.
    pub fn only_walks(&self) -> bool {
        self.iterators.len() == self.programs.len()
    }

    /// A walk of each iterator, all before their first object.
    pub fn walks(&self) -> Result<Vec<Walk>, LoadError> {
        self.iterators.iter().map(Iterated::walk).collect()
    }

    /// The ring that the programs write to.
    pub fn ring(&self) -> Result<Ring, LoadError> {
        let map = self.object.maps().find(|m| m.name() == OsStr::new("events"));
        let map = map.ok_or_else(|| LoadError::Counters("the ring is missing".to_owned()))?;
        Ok(Ring::new(&map)?)
    }

    /// What became of the hits of each probe, by the probe's index in the plan: also while programs run.
    pub fn counts(&self, probes: usize) -> Result<Vec<Counts>, LoadError> {
        let map = self.counters()?;
        let mut counts = vec![Counts::default(); probes];
        for (program, number) in self.programs.iter().zip(0u32..) {
            counts[program.of.probe].add(&settled(&map, number)?);
        }
        for program in self.object.progs_mut() {
            if let Some(named) = self.programs.iter().find(|n| OsStr::new(&n.name) == program.name()) {
                let missed = perf::recursion_misses(program.as_fd());
                counts[named.of.probe].missed += missed.map_err(|e| LoadError::Counters(e.to_string()))?;
            }
        }
        for (calls, probe) in self.unfollowed.iter().copied().chain(unfollowed(&self.links)) {
            counts[probe].missed += calls;
        }
        Ok(counts)
    }

    /// How many events have been lost, of all probes together.
    pub fn lost(&self) -> Result<u64, LoadError> {
        let map = self.counters()?;
        let of_program = |number| Ok(per_cpu(&map, number)?.iter().map(|counts| counts.lost).sum::<u64>());
        (0u32..).take(self.programs.len()).map(of_program).sum()
    }

    fn counters(&self) -> Result<impl MapCore, LoadError> {
        let map = self.object.maps().find(|m| m.name() == OsStr::new("counters"));
        map.ok_or_else(|| LoadError::Counters("the map is missing".to_owned()))
    }

    /// Stops the programs and waits until none of them runs any more. Blocks for up to about 100 ms.
    pub fn detach(&mut self) {
        let mut links = std::mem::take(&mut self.links);
        self.unfollowed.extend(unfollowed(&links));
        let share = links.len().div_ceil(DETACH_THREADS).max(1);
        // Closing a link may wait for the kernel, so many are closed at once.
        std::thread::scope(|scope| {
            while !links.is_empty() {
                let some = links.split_off(links.len().saturating_sub(share));
                scope.spawn(move || drop(some));
            }
        });
        perf::wait_for_programs();
    }

    /// What is left when all has been detached.
    pub fn leftover(self) -> Leftover {
        Leftover::new(self.events)
    }
}

/// The counters of one program on each CPU.
fn per_cpu(counters: &impl MapCore, number: u32) -> Result<Vec<Counts>, LoadError> {
    let values = counters.lookup_percpu(&number.to_ne_bytes(), MapFlags::ANY);
    let values = values.map_err(|e| LoadError::Counters(e.to_string()))?;
    Ok(values.unwrap_or_default().iter().map(|value| Counts::read(value)).collect())
}

/// None where the kernel does not tell, also as it has no such links at all.
fn link_misses(link: &Link) -> Option<u64> {
    perf::link_misses(link.as_fd()).ok().flatten()
}

/// What links tell of calls that the kernel has not followed, with the index of their probe.
fn unfollowed(links: &[(Link, usize)]) -> impl Iterator<Item = (u64, usize)> {
    links.iter().map(|(link, probe)| (link_misses(link).unwrap_or(0), *probe))
}

/// The counters of one program, all CPUs together, such that they add up.
///
/// A program counts its hit first and what became of it last, so where a CPU's counters add up, none was between the
/// two there; they are read again until they do. A CPU on which the program never rests long enough keeps what was read
/// last.
fn settled(counters: &impl MapCore, number: u32) -> Result<Counts, LoadError> {
    let mut cpus = per_cpu(counters, number)?;
    for _ in 0..READS {
        if cpus.iter().all(Counts::add_up) {
            break;
        }
        for (old, new) in cpus.iter_mut().zip(per_cpu(counters, number)?) {
            if !old.add_up() {
                *old = new;
            }
        }
    }
    let mut sum = Counts::default();
    cpus.iter().for_each(|counts| sum.add(counts));
    Ok(sum)
}

impl Counts {
    /// Of [`Counter`]s as a program keeps them.
    fn read(value: &[u8]) -> Counts {
        let mut counters = [0; COUNTER_COUNT];
        for (counter, bytes) in counters.iter_mut().zip(value.chunks_exact(8)) {
            *counter = u64::from_ne_bytes(bytes.try_into().unwrap_or_default());
        }
        Counts {
            hits: counters[Counter::Hits as usize],
            filtered: counters[Counter::Filtered as usize],
            emitted: counters[Counter::Emitted as usize],
            lost: counters[Counter::Lost as usize],
            faults: counters[Counter::Faults as usize],
            missed: 0,
        }
    }

    fn add_up(&self) -> bool {
        self.hits == self.filtered + self.emitted + self.lost
    }

    fn add(&mut self, other: &Counts) {
        self.hits += other.hits;
        self.filtered += other.filtered;
        self.emitted += other.emitted;
        self.lost += other.lost;
        self.faults += other.faults;
        self.missed += other.missed;
    }
}
