//! A run: plugins from file to account.
//!
//! [`Prepared`] is a plugin whose declaration has been compiled and loaded; [`Running`] one whose probes fire. Each
//! running plugin is one task that owns its instance and its ring and does one thing at a time: a batch, a tick, or the
//! end. So a plugin is never called twice at once, and one that is slow holds up nobody else.

mod account;
mod ask;
mod end;
mod stages;
mod walk;

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::compile::{CompileError, Compiled, compile};
use crate::declare::Declaration;
use crate::events::{Batch, Ring, RingError};
use crate::kernel::KernelFacts;
use crate::load::{Attached, Leftover, LoadError, Loaded, Refusal, load, report_directories};
use crate::output::{self, Closed, Output, Renderer, Sent};
use crate::plan::{Diagnostics, Plan, Policy, Shown, plan_under};
use crate::plugin::{Limits, Plugin, PluginError, Runtime};

pub use account::{Account, ProbeAccount, Usage};
pub use ask::{Asked, Asker, asker};
pub use end::{Stop, Stopper, stopper};
use stages::Stopwatch;
pub use stages::{Cost, Stages};

/// What a plugin can fail by. Each message stands behind the plugin's name.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Plugin(#[from] PluginError),
    /// All faults of its declaration.
    #[error("its declaration has {} fault{}:\n{}", .0.0.len(), if .0.0.len() == 1 { "" } else { "s" }, .0)]
    Declaration(#[from] Diagnostics),
    #[error(transparent)]
    Compile(#[from] CompileError),
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The verifier refused a program. That is a fault of Porthole, and all that is known of it is in a file.
    #[error("this is a bug of porthole, please report it{}: {refusal}", with(.saved))]
    Refused { refusal: Box<Refusal>, saved: Result<PathBuf, String> },
    #[error(transparent)]
    Ring(#[from] RingError),
    /// The plugin called `finish` with an error.
    #[error("{}", Shown(.0))]
    Finished(String),
    #[error("a task of the host ended early: {0}")]
    Task(String),
}

fn with(saved: &Result<PathBuf, String>) -> String {
    match saved {
        Ok(path) => format!(" with the file {}", path.display()),
        Err(error) => format!(" with what follows (more could not be written to a file: {error})"),
    }
}

/// What holds for each plugin of a run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub limits: Limits,
    /// Bytes of each plugin's ring: a power of two, and a multiple of the page size.
    pub ring: u32,
}

/// A plugin that has declared what it wants.
pub struct Declared {
    pub name: String,
    pub plugin: Plugin,
    pub declaration: Declaration,
    pub plan: Plan,
    pub stages: Stages,
}

/// A plugin whose programs are in the kernel and do not fire yet.
pub struct Prepared {
    name: String,
    plugin: Plugin,
    plan: Plan,
    stages: Stages,
    loaded: Loaded,
}

/// A plugin whose programs fire.
pub struct Running {
    name: String,
    plugin: Plugin,
    plan: Plan,
    stages: Stages,
    attached: Attached,
    ring: Ring,
}

/// Runs the plugin's `declare` and checks what it says.
pub async fn declare(
    runtime: &Runtime,
    path: &Path,
    args: &[String],
    limits: Limits,
    (facts, policy): (&KernelFacts, &Policy),
) -> Result<Declared, RunError> {
    let watch = Stopwatch::start();
    let component = runtime.load(path)?;
    let mut plugin = Plugin::instantiate(runtime, &component, limits).await?;
    let declaration = plugin.declare(args).await.inspect_err(|_| {
        // Often the plugin's last words say more than the error does.
        output::logs(component.name(), plugin.take_output());
    })?;
    let mut stages = Stages { declare: watch.stop(), ..Stages::default() };
    let watch = Stopwatch::start();
    let plan = plan_under(&declaration, facts, policy)?;
    stages.plan = watch.stop();
    Ok(Declared { name: component.name().to_owned(), plugin, declaration, plan, stages })
}

impl Declared {
    /// Compiles and loads.
    pub fn prepare(self, options: &Options) -> Result<Prepared, RunError> {
        let Declared { name, plugin, declaration, plan, mut stages } = self;
        let watch = Stopwatch::start();
        let compiled = compile(&plan, &name, options.ring)?;
        stages.compile = watch.stop();
        let watch = Stopwatch::start();
        let loaded = load_reporting(&compiled, &declaration, &report_directories())?;
        stages.load = watch.stop();
        Ok(Prepared { name, plugin, plan, stages, loaded })
    }
}

/// Loads. Where the verifier refuses a program, a file to be reported is written to the first of these directories that
/// takes it.
pub fn load_reporting(compiled: &Compiled, declaration: &Declaration, reports: &[PathBuf]) -> Result<Loaded, RunError> {
    load(compiled).map_err(|error| match error {
        LoadError::Refused(refusal) => {
            let saved = refusal.save(declaration, reports).map_err(|error| error.to_string());
            RunError::Refused { refusal, saved }
        }
        error => error.into(),
    })
}

impl Prepared {
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Attaches all probes, or none.
    pub fn attach(self) -> Result<Running, RunError> {
        let Prepared { name, plugin, plan, mut stages, loaded } = self;
        let watch = Stopwatch::start();
        let attached = loaded.attach(&plan)?;
        stages.attach = watch.stop();
        if let [first, others @ ..] = attached.left_out() {
            let others = if others.is_empty() { String::new() } else { format!(", and {} more", others.len()) };
            tracing::warn!("{name}: of what its patterns match, this is left out: {first}{others}");
        }
        if plan.follows_calls() && !attached.tells_unfollowed() {
            tracing::warn!(
                "{name}: at kretprobe, this kernel follows no more than some calls at once to their returns, and does not tell (as Linux 6.7 does) how many it has not \
                 followed; fexit follows all"
            );
        }
        let ring = attached.ring()?;
        Ok(Running { name, plugin, plan, stages, attached, ring })
    }
}

impl Running {
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many attach points its probes are attached to.
    pub fn attach_points(&self) -> usize {
        self.attached.points()
    }

    pub fn schemas(&self) -> &[crate::plan::layout::Schema] {
        &self.plan.schemas
    }

    /// Feeds the plugin until it finishes, fails, or `stop` says so; then detaches, delivers what is left, and returns
    /// the account, and what the kernel need not be waited for. The error is what the plugin failed by.
    pub async fn run(
        self,
        mut renderer: Renderer,
        output: Output,
        mut stop: Stop,
        mut asked: Asked,
    ) -> (Account, Leftover, Result<(), RunError>) {
        let Running { name, plugin, plan, mut stages, mut attached, ring } = self;
        let mut feed = Feed {
            name: &name,
            plugin,
            stages,
            ring,
            renderer: &mut renderer,
            output,
            delivered: vec![0; plan.schemas.len()],
            lost: 0,
            spare: Batch::default(),
        };
        let mut result = feed.start(&plan).await;
        if result.is_ok() {
            result = feed.until_stopped(&plan, &attached, &mut stop, &mut asked).await;
        }

        // Detaching blocks for as long as the kernel takes; others go on meanwhile.
        let detached = tokio::task::spawn_blocking(move || {
            let watch = Stopwatch::start();
            attached.detach();
            (attached, watch.stop())
        });
        let (counts, leftover) = match detached.await {
            Ok((attached, cost)) => {
                stages.detach = cost;
                if result.is_ok() {
                    result = feed.drain(&attached).await;
                }
                (attached.counts(plan.probes.len()).map_err(RunError::from), attached.leftover())
            }
            Err(error) => (Err(RunError::Task(error.to_string())), Leftover::default()),
        };
        if result.is_ok() {
            result = feed.stop().await;
        }
        feed.flush_log().await;
        let (counts, result) = match (counts, result) {
            (Ok(counts), result) => (counts, result),
            (Err(error), result) => (Vec::new(), result.and(Err(error))),
        };
        (Account::new(&name, stages, &plan, &counts, &feed.delivered), leftover, result)
    }
}

/// What a running plugin is fed with, and where what it says goes.
struct Feed<'a> {
    name: &'a str,
    plugin: Plugin,
    /// Those behind it.
    stages: Stages,
    ring: Ring,
    renderer: &'a mut Renderer,
    output: Output,
    /// Records of each schema that the plugin was given.
    delivered: Vec<u64>,
    /// What had been lost when the last batch was given.
    lost: u64,
    /// A batch's memory, for the next.
    spare: Batch,
}

impl Feed<'_> {
    async fn start(&mut self, plan: &Plan) -> Result<(), RunError> {
        let result = self.plugin.start(&plan.schemas).await;
        self.pass_on().await;
        Ok(result?)
    }

    async fn until_stopped(
        &mut self,
        plan: &Plan,
        attached: &Attached,
        stop: &mut Stop,
        asked: &mut Asked,
    ) -> Result<(), RunError> {
        let period = plan.tick.unwrap_or(Duration::MAX);
        let begun = Instant::now();
        // A period that never ends stands for no ticks: 30 years from now.
        let first = begun.checked_add(period).unwrap_or(begun + Duration::from_secs(30 * 365 * 86_400));
        let mut ticks = interval_at(first, plan.tick.unwrap_or(Duration::from_secs(86_400)));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        if plan.tick.is_none() {
            self.walk_all(attached, stop).await?;
            if attached.only_walks() {
                return self.finished();
            }
        }
        while self.plugin.finished().is_none() {
            // No handler runs while this waits, and each wait can be left half-way without a loss.
            tokio::select! {
                () = stop.asked() => return Ok(()),
                () = self.output.closed() => { stop.everything(); return Ok(()) }
                at = ticks.tick(), if plan.tick.is_some() => {
                    self.walk_all(attached, stop).await?;
                    if self.plugin.finished().is_some() {
                        continue;
                    }
                    let n = at.duration_since(begun).as_nanos() / period.as_nanos().max(1);
                    let result = self.plugin.on_tick(n as u64).await;
                    self.pass_on().await;
                    result?;
                }
                ready = self.ring.wait() => {
                    ready?;
                    self.deliver_all(attached, Some(stop)).await?;
                }
                () = asked.asked() => asked.answer(self.account(plan, attached, stop).await?),
            }
        }
        self.finished()
    }

    /// The error that the plugin has finished with, if it has.
    fn finished(&self) -> Result<(), RunError> {
        match self.plugin.finished() {
            Some(Err(message)) => Err(RunError::Finished(message.clone())),
            _ => Ok(()),
        }
    }

    /// Gives the plugin what is in the ring, batch by batch, until that is empty, `stop` says so, or it finishes.
    async fn deliver_all(&mut self, attached: &Attached, stop: Option<&Stop>) -> Result<(), RunError> {
        loop {
            let batch = self.ring.take(std::mem::take(&mut self.spare))?;
            let (more, empty) = (batch.is_full(), batch.count == 0);
            if !empty {
                self.deliver(attached, batch).await?;
            }
            if !more || self.plugin.finished().is_some() || stop.is_some_and(Stop::is_asked) {
                return Ok(());
            }
        }
    }

    async fn deliver(&mut self, attached: &Attached, batch: Batch) -> Result<(), RunError> {
        let lost = attached.lost()?;
        let since = lost.saturating_sub(self.lost);
        self.lost = lost;
        let result = self.plugin.on_events(&batch.records, batch.count, since).await;
        self.pass_on().await;
        result?;
        for (total, new) in self.delivered.iter_mut().zip(&batch.by_schema) {
            *total += new;
        }
        self.spare = batch;
        Ok(())
    }

    /// What has become of every event so far. What comes later than the question is not in it, though it may be
    /// delivered with the rest.
    async fn account(&mut self, plan: &Plan, attached: &Attached, stop: &Stop) -> Result<Account, RunError> {
        let counts = attached.counts(plan.probes.len())?;
        self.deliver_all(attached, Some(stop)).await?;
        let mut account = Account::new(self.name, self.stages, plan, &counts, &self.delivered);
        for probe in &mut account.probes {
            probe.delivered = probe.delivered.min(probe.emitted);
        }
        Ok(account)
    }

    /// Delivers what was sent before the probes were detached, and tells of what was lost behind it.
    async fn drain(&mut self, attached: &Attached) -> Result<(), RunError> {
        if self.plugin.finished().is_some() {
            return Ok(());
        }
        self.deliver_all(attached, None).await?;
        if self.plugin.finished().is_none() && attached.lost()? > self.lost {
            self.deliver(attached, Batch::default()).await?;
        }
        self.finished()
    }

    async fn stop(&mut self) -> Result<(), RunError> {
        let result = self.plugin.stop().await;
        self.pass_on().await;
        Ok(result?)
    }

    /// What the plugin said in a handler that failed.
    async fn flush_log(&mut self) {
        self.pass_on().await;
    }

    /// Hands on what the plugin said. Where nobody reads the output any more, `until_stopped` finds that out.
    async fn pass_on(&mut self) {
        let mut sent = Sent::from(self.plugin.take_output());
        while !sent.is_empty() {
            let bytes = self.renderer.render(&mut sent, self.plugin.symbols());
            if !bytes.is_empty() {
                let _: Result<(), Closed> = self.output.write(bytes).await;
            }
            if !sent.is_empty() {
                tokio::task::yield_now().await;
            }
        }
    }
}
