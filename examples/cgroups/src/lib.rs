//! Cgroups at each tick, with what runs in them and what they have used; and processes, with the cgroup that they
//! belong to.
//!
//! The kernel counts: a walk over a cgroup's threads and one over the cgroups below it, for each cgroup that the
//! iterator comes by. The iterator comes by a cgroup before those below it, so the handler knows the path that a name
//! continues.

use std::collections::HashMap;

use porthole_guest::prelude::*;

/// A cgroup, at each tick. `args.cgroup` is one of the hierarchy of version 2.
#[derive(Event)]
#[probe(attach = "iter:cgroup", kfuncs = ["bpf_iter_css_new", "bpf_iter_css_task_new"])]
struct Cgroup<'a> {
    #[expr("args.cgroup.kn.id")]
    id: u64,
    #[expr("args.cgroup.self.parent.cgroup.kn.id")]
    parent: Option<u64>,
    #[expr("str(args.cgroup.kn.name)")]
    name: Text<'a>,
    #[expr("args.cgroup.level")]
    level: i32,
    /// 1 is `CSS_TASK_ITER_PROCS` (the kernel's include/linux/cgroup.h): the first thread of each process.
    #[expr("count(css_tasks(args.cgroup, 1))")]
    processes: u64,
    #[expr("count(css_tasks(args.cgroup))")]
    threads: u64,
    /// The walk begins with the cgroup itself.
    #[expr("count(descendants(args.cgroup)) - 1")]
    descendants: u64,
    #[expr("sum(descendants(args.cgroup), below, count(css_tasks(below.cgroup)))")]
    threads_in_all: u64,
    /// The root has none: the kernel tells the whole machine's from elsewhere.
    #[expr("args.cgroup.bstat.cputime.sum_exec_runtime / 1000")]
    cpu_us: u64,
    /// Absent where the cgroup has no memory controller. The kernel counts pages, here of 4 KiB.
    #[expr("container_of(args.cgroup.subsys[memory_cgrp_id], struct mem_cgroup, css).memory.usage.counter * 4096")]
    memory: Option<i64>,
}

/// A process has begun a program, or its first thread ends. `top` is the chosen cgroup.
#[derive(Event)]
#[probe(
    attach = ["rawtracepoint:sched_process_exec", "rawtracepoint:sched_process_exit"],
    kfuncs = ["bpf_cgroup_ancestor", "bpf_cgroup_from_id", "bpf_task_under_cgroup"],
    when = "args.p.pid == args.p.tgid",
    when = "bpf_task_under_cgroup(args.p, top)",
    bind(own = "args.p.cgroups.dfl_cgrp", below = "bpf_cgroup_ancestor(args.p.cgroups.dfl_cgrp, top.level + 1)")
)]
struct Process<'a> {
    #[expr("ends_with(probe, \"exit\")")]
    ended: bool,
    pid: u32,
    comm: Comm,
    #[expr("own.kn.id")]
    id: u64,
    #[expr("str(own.kn.name)")]
    name: Text<'a>,
    #[expr("own.level")]
    level: i32,
    #[expr("below.kn.id")]
    below_id: Option<u64>,
    #[expr("str(below.kn.name)")]
    below: Option<Text<'a>>,
    /// Of the cgroup that the process's memory is counted to, in whichever version's hierarchy that is.
    #[expr("container_of(args.p.cgroups.subsys[memory_cgrp_id], struct mem_cgroup, css).memory.usage.counter * 4096")]
    memory: Option<i64>,
}

#[derive(Event)]
enum Seen<'a> {
    Cgroup(Cgroup<'a>),
    Process(Process<'a>),
}

#[derive(Default)]
struct Cgroups {
    /// The chosen cgroup as its paths begin.
    top: String,
    /// Paths by id: of this walk, and of the one before it.
    paths: HashMap<u64, String>,
    before: HashMap<u64, String>,
}

impl Plugin for Cgroups {
    type Event<'a> = Seen<'a>;

    fn declare(&mut self, args: &mut Args, declaration: &mut Declaration) -> Result<(), String> {
        declaration.tick(args.value("--every")?.unwrap_or(1000));
        let chosen = args.value::<String>("--cgroup")?.unwrap_or_default();
        let top = Top::of(&chosen)?;
        self.top = chosen.trim_end_matches('/').to_owned();
        for (name, cgroup) in [("cgroup", "args.cgroup"), ("process", "args.p.cgroups.dfl_cgrp")] {
            let Some(probe) = declaration.probe(name) else { continue };
            probe.when(&top.condition(cgroup));
            probe.bind("top", &top.value(cgroup));
        }
        if args.flag("--fresh") {
            // As it is called from Linux 6.15 on, and before: one of them is there.
            declaration.optional_kfunc("css_rstat_flush");
            declaration.optional_kfunc("cgroup_rstat_flush");
            if let Some(probe) = declaration.probe("cgroup") {
                probe.bind("fresh", "css_rstat_flush(&args.cgroup.self)");
                probe.bind("fresh_as_well", "cgroup_rstat_flush(args.cgroup)");
            }
        }
        Ok(())
    }

    fn on(&mut self, seen: &Seen, out: &mut Output) {
        match seen {
            Seen::Cgroup(cgroup) => self.cgroup(cgroup, out),
            Seen::Process(process) => self.process(process, out),
        }
    }

    fn on_tick(&mut self, _: u64, _: &mut Output) -> Result<(), String> {
        self.before = std::mem::take(&mut self.paths);
        Ok(())
    }
}

impl Cgroups {
    fn cgroup(&mut self, cgroup: &Cgroup, out: &mut Output) {
        let path = match cgroup.parent.and_then(|parent| self.paths.get(&parent)) {
            Some(parent) => format!("{parent}/{}", cgroup.name),
            // The first of the walk.
            None => self.top.clone(),
        };
        let cut = out.walk_was_cut();
        out.new_row("cgroup")
            .column("id", cgroup.id)
            .column("path", shown(&path))
            .column("level", cgroup.level)
            .column("processes", cgroup.processes)
            .column("threads", cgroup.threads)
            .column("descendants", cgroup.descendants)
            .column("threads_in_all", cgroup.threads_in_all)
            .column("cpu_us", (cgroup.level > 0).then_some(cgroup.cpu_us))
            .column("memory", cgroup.memory)
            .column("cut", cut)
            .send();
        self.paths.insert(cgroup.id, path);
    }

    fn process(&self, process: &Process, out: &mut Output) {
        let path = self.paths.get(&process.id).or_else(|| self.before.get(&process.id));
        out.new_row(if process.ended { "exit" } else { "exec" })
            .column("pid", process.pid)
            .column("comm", &process.comm)
            .column("id", process.id)
            .column("name", process.name)
            .column("path", path.map(|path| shown(path)))
            .column("level", process.level)
            .column("below_id", process.below_id)
            .column("below", process.below)
            .column("memory", process.memory)
            .send();
    }
}

fn shown(path: &str) -> &str {
    if path.is_empty() { "/" } else { path }
}

/// The cgroup whose descendants are wanted.
enum Top {
    Id(u64),
    /// Its name, its parent's, and so on.
    Path(Vec<String>),
}

impl Top {
    /// Of an id, or of a path as /proc/PID/cgroup has it; nothing is the root.
    fn of(chosen: &str) -> Result<Top, String> {
        if let Ok(id) = chosen.parse() {
            return Ok(Top::Id(id));
        }
        if !chosen.is_empty() && !chosen.starts_with('/') {
            return Err(format!("--cgroup: '{chosen}' is neither an id nor a path that begins with /"));
        }
        Ok(Top::Path(chosen.split('/').filter(|name| !name.is_empty()).rev().map(str::to_owned).collect()))
    }

    /// An expression for the chosen cgroup; of a path, for the cgroup that is as deep and that this one lies below.
    fn value(&self, cgroup: &str) -> String {
        match self {
            Top::Id(id) => format!("bpf_cgroup_from_id({id})"),
            Top::Path(names) => format!("bpf_cgroup_ancestor({cgroup}, {})", names.len()),
        }
    }

    /// What holds where the cgroup is the chosen one or lies below it. A plugin has no files: a path is known by its
    /// names alone, in the kernel.
    fn condition(&self, cgroup: &str) -> String {
        let Top::Path(names) = self else { return format!("bpf_cgroup_ancestor({cgroup}, top.level) == top") };
        let (mut condition, mut ancestor) = ("true".to_owned(), "top".to_owned());
        for name in names {
            condition.push_str(&format!(" && str({ancestor}.kn.name) == {}", quote(name)));
            ancestor.push_str(".self.parent.cgroup");
        }
        condition
    }
}

porthole_guest::register!(Cgroups);

#[cfg(test)]
mod tests {
    use super::*;
    use porthole_guest::testing::{NewBatch, OwnedValue, Run, Sent, declare};
    use porthole_guest::{Probe, Step};

    /// The steps that the plugin has put in front of the probe's own, as text.
    fn added(args: &[&str], probe: &str, steps: usize) -> Vec<String> {
        let declaration = declare::<Cgroups>(args).expect("the arguments are good");
        let found = declaration.probes.iter().find(|declared| declared.name == probe);
        let Probe { body, .. } = found.expect("it is declared");
        let text = |step: &Step| match step {
            Step::Bind(bound) => format!("{} = {}", bound.name, bound.value),
            Step::When(condition) => condition.clone(),
            other => panic!("{other:?}"),
        };
        body.iter().take(steps).map(text).collect()
    }

    #[test]
    fn a_cgroup_is_chosen_by_its_path_or_its_id() {
        assert_eq!(added(&[], "cgroup", 2), ["top = bpf_cgroup_ancestor(args.cgroup, 0)", "true"]);
        let by_path = [
            "top = bpf_cgroup_ancestor(args.cgroup, 2)",
            "true && str(top.kn.name) == \"b\\\"\" && str(top.self.parent.cgroup.kn.name) == \"a\"",
        ];
        assert_eq!(added(&["--cgroup", "/a/b\"/"], "cgroup", 2), by_path);
        let by_id = ["top = bpf_cgroup_from_id(77)", "bpf_cgroup_ancestor(args.p.cgroups.dfl_cgrp, top.level) == top"];
        assert_eq!(added(&["--cgroup=77"], "process", 2), by_id);
        assert!(declare::<Cgroups>(&["--cgroup", "a/b"]).is_err());
    }

    #[test]
    fn what_is_fresh_is_flushed_by_whichever_kfunc_there_is() {
        let declaration = declare::<Cgroups>(&["--fresh"]).expect("the arguments are good");
        let needed =
            |name: &str| declaration.kfuncs.iter().find(|kfunc| kfunc.name == name).map(|kfunc| kfunc.required);
        assert_eq!((needed("css_rstat_flush"), needed("cgroup_rstat_flush")), (Some(false), Some(false)));
        let flush = ["fresh_as_well = cgroup_rstat_flush(args.cgroup)", "fresh = css_rstat_flush(&args.cgroup.self)"];
        assert_eq!(added(&["--fresh"], "cgroup", 2), flush);
        assert!(!declare::<Cgroups>(&[]).expect("so are none").kfuncs.iter().any(|kfunc| kfunc.name.contains("rstat")));
    }

    fn cgroup(batch: &mut NewBatch, id: u64, parent: Option<u64>, name: &str, level: i32) {
        let fields = [
            ("id", id.into()),
            ("parent", parent.into()),
            ("name", name.into()),
            ("level", level.into()),
            ("cpu_us", 5u64.into()),
        ];
        batch.event("cgroup", 1, 0, &fields);
    }

    fn column<'s>(sent: &'s Sent, name: &str) -> &'s OwnedValue {
        let Sent::Row { columns, .. } = sent else { panic!("{sent:?}") };
        &columns.iter().find(|(column, _)| column == name).unwrap_or_else(|| panic!("no {name} in {sent:?}")).1
    }

    fn texts(sent: &[Sent], name: &str) -> Vec<String> {
        let text = |sent| match column(sent, name) {
            OwnedValue::Text(text) => text.clone(),
            other => format!("{other:?}"),
        };
        sent.iter().map(text).collect()
    }

    /// The walk goes down before it goes on, and may be cut into batches anywhere.
    #[test]
    fn a_path_continues_the_parents() {
        for (args, paths) in [
            (&[][..], ["/", "/a", "/a/b", "/c"]),
            (&["--cgroup", "/x/y/"], ["/x/y", "/x/y/a", "/x/y/a/b", "/x/y/c"]),
            (&["--cgroup", "77"], ["77", "77/a", "77/a/b", "77/c"]),
        ] {
            let mut run = Run::<Cgroups>::start(args).expect("it starts");
            let mut sent = run
                .batch(|batch| {
                    cgroup(batch, 1, Some(1000), "", 0);
                    cgroup(batch, 2, Some(1), "a", 1);
                })
                .expect("the batch is good");
            let rest = run.batch(|batch| {
                cgroup(batch, 3, Some(2), "b", 2);
                cgroup(batch, 4, Some(1), "c", 1);
            });
            sent.extend(rest.expect("the batch is good"));
            assert_eq!(texts(&sent, "path"), paths);
            // The root has no CPU time of its own.
            assert_eq!(
                (column(&sent[0], "cpu_us"), column(&sent[1], "cpu_us")),
                (&OwnedValue::Absent, &OwnedValue::Unsigned(5))
            );
        }
    }

    #[test]
    fn what_could_not_be_counted_to_the_end_is_told() {
        let mut run = Run::<Cgroups>::start(&[]).expect("it starts");
        let sent = run.batch(|batch| {
            cgroup(batch, 1, None, "", 0);
            batch.event_of_cut_walk("cgroup", 1, 0, &[("id", 2u64.into()), ("threads", 16384u64.into())]);
        });
        let sent = sent.expect("the batch is good");
        let cut: Vec<_> = sent.iter().map(|sent| column(sent, "cut")).collect();
        assert_eq!(cut, [&OwnedValue::Boolean(false), &OwnedValue::Boolean(true)]);
    }

    #[test]
    fn paths_are_known_until_the_end_of_the_next_walk() {
        let mut run = Run::<Cgroups>::start(&[]).expect("it starts");
        let told = |run: &mut Run<Cgroups>| {
            let event = [("id", 2u64.into()), ("ended", true.into())];
            let sent = run.batch(|batch| batch.event("process", 2, 0, &event)).expect("the batch is good");
            column(&sent[0], "path").clone()
        };
        assert_eq!(told(&mut run), OwnedValue::Absent);
        let walk = run.batch(|batch| {
            cgroup(batch, 1, None, "", 0);
            cgroup(batch, 2, Some(1), "a", 1);
        });
        assert_eq!(walk.expect("the batch is good").len(), 2);
        for (tick, path) in [(1, OwnedValue::Text("/a".to_owned())), (2, OwnedValue::Absent)] {
            assert_eq!(run.tick(tick), Ok(vec![]));
            assert_eq!(told(&mut run), path);
        }
    }
}
