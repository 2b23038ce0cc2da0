//! The process that runs one stage.
//!
//! The parent holds the other end of stdin. When that end closes, for whatever reason the parent ended, the child asks
//! its stage to save its progress and exits within [`ORPHAN_GRACE`], so no process outlives its run.

use std::fs::File;
use std::io::{BufRead, BufReader, Stdin, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use serde::{Deserialize, Serialize};
use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR2};
use signal_hook::iterator::Signals;

use super::batch::{Job, Task, seal_of_job};
use super::event_output::{seal_events, send};
use super::log::{log, redirect_stderr};
use super::machine::oom_kills;
use super::protocol::{EXIT_INTERRUPTED, ProcessEvent, STOP, TaskSpec};
use super::status::Cause;
use crate::config::{Device, redact};
use crate::nn::OutOfMemory;
use crate::runs::{Remote, Unavailable};
use crate::stages::command::Killed;
use crate::stages::{self, Context, Interrupted, Outcome, StageEvent};
use crate::store::seal::{Seal, seal, unseal};
use crate::store::{self, Action, Cost, Digest, KeyLock, ReadError, Store, open_own, read_record};

/// How long a stage may take to save after its parent has ended.
const ORPHAN_GRACE: Duration = Duration::from_secs(2);
/// How long a stage may take to save after a stop; a training step or a batch of samples can be long.
const STOP_GRACE: Duration = Duration::from_secs(30);
/// The minimum interval between two progress events.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// The file in the key's work folder with the stderr of the stage's processes and its messages.
pub(super) const LOG_FILE: &str = "log.txt";
/// The file in the key's work folder with the stage's events, one per line.
const EVENTS_FILE: &str = "events.jsonl";
/// The file in the key's work folder with the total duration of all attempts.
const SECONDS_FILE: &str = "seconds";

/// Runs one stage, and returns the exit code of the process. The task comes from stdin, or in a job from the record of
/// its `batch`.
pub fn exec(batch: Option<&Path>) -> u8 {
    let ended = match batch {
        None => run_from_stdin(),
        Some(batch) => run_as_job(batch),
    };
    match ended {
        Ok(Ended::Done) => 0,
        Ok(Ended::Failed) => 1,
        Ok(Ended::Interrupted) => EXIT_INTERRUPTED,
        Err(error) => {
            // For users who run the hidden command by hand.
            log(&format!("error: {error:#}"));
            send(&ProcessEvent::Failed { error: format!("{error:#}"), cause: Cause::Failed, damaged: None });
            1
        }
    }
}

/// How an attempt to run a stage ended.
enum Ended {
    Done,
    Failed,
    Interrupted,
}

fn run_from_stdin() -> Result<Ended> {
    let mut stdin = BufReader::new(std::io::stdin());
    let mut line = String::new();
    stdin.read_line(&mut line).context("reading the task from stdin")?;
    let spec: TaskSpec =
        serde_json::from_str(&line).context("parsing the task on stdin (srpipe runs this command itself)")?;
    let stop = Arc::new(Stop::default());
    stop.listen(stdin)?;
    attempt(&spec, &Store::open(&spec.runs)?, &stop)
}

fn run_as_job(batch: &Path) -> Result<Ended> {
    let job = Job::new(batch, super::batch_system_of_job);
    let index = job.as_ref().map_or_else(|_| super::index_of_job(), Job::index);
    seal_of_job(batch, index).into_iter().for_each(seal_events);
    let job = job?;
    let store = Store::open(job.runs())?;
    let spec = match job.task(&store)? {
        Task::Run(spec) => spec,
        Task::Cached => {
            send(&ProcessEvent::Done { adopted: true });
            return Ok(Ended::Done);
        }
    };
    let stop = Arc::new(Stop { job: Some(job), ..Stop::default() });
    stop.listen_for_signals()?;
    attempt(&spec, &store, &stop)
}

/// Runs a stage unless its result is cached. Waits for other processes that compute the same key.
fn attempt(spec: &TaskSpec, store: &Store, stop: &Stop) -> Result<Ended> {
    let lock = match store.try_lock(&spec.key)? {
        Some(lock) => lock,
        None => {
            let holder = store.lock_holder(&spec.key).map(|holder| holder.to_string());
            send(&ProcessEvent::WaitingForLock { holder });
            store.lock(&spec.key)?
        }
    };
    let is_cached = |action: Action| spec.preimage.check_outputs(&action.outputs).is_ok();
    if !spec.force && store.action(&spec.key)?.is_some_and(is_cached) {
        // This process has created the work folder again, with an empty log, which must not replace the archived one. A
        // log that is not empty is from a process that died between commit and cleanup.
        let log = store.work_dir(&spec.key).join(LOG_FILE);
        if std::fs::metadata(&log).is_ok_and(|metadata| metadata.len() == 0) {
            let _ = std::fs::remove_file(&log);
        }
        clean_up(store, lock);
        send(&ProcessEvent::Done { adopted: true });
        return Ok(Ended::Done);
    }
    // `gc` may have removed the log that the parent opened before this process had the lock.
    redirect_stderr(&store.work_dir(&spec.key).join(LOG_FILE))?;
    if let Some(address) = spec.remote.as_ref().filter(|_| !spec.force) {
        store.lease(&lock)?;
        match Remote::open(address).and_then(|remote| remote.fetch(store, &spec.key)) {
            Ok(true) => {
                send(&StageEvent::Message { text: redact(&format!("fetched from {address}")).into_owned() });
                clean_up(store, lock);
                send(&ProcessEvent::Done { adopted: true });
                return Ok(Ended::Done);
            }
            Ok(false) => {}
            Err(error) => {
                let text = match Unavailable::is_cause_of(&error) {
                    true => {
                        send(&ProcessEvent::CacheUnavailable);
                        stop.job.iter().for_each(Job::disable_cache);
                        format!(
                            "warning: cannot use the shared cache {address}: {error:#}; the run continues without it"
                        )
                    }
                    false => format!(
                        "warning: cannot use the result in the shared cache {address}: {error:#}; the stage runs here"
                    ),
                };
                let text = redact(&text).into_owned();
                log(&text);
                send(&StageEvent::Message { text });
            }
        }
    }
    if !stop.begin() {
        stop.report_stopped();
        return Ok(Ended::Interrupted);
    }
    rayon::ThreadPoolBuilder::new().num_threads(spec.threads).build_global().context("starting the threads")?;
    send(&ProcessEvent::Started);

    let work = store.work_dir(&spec.key);
    std::fs::create_dir_all(&work).with_context(|| format!("creating {}", work.display()))?;
    store.lease(&lock)?;
    let clock = Clock::new(&work);
    let oom_kills_before = oom_kills();
    let result = run_stage(spec, store, stop, &clock);
    clock.save();
    match result {
        Ok(Outcome { outputs, metrics }) => {
            let cost = Cost {
                seconds: clock.seconds(),
                finished_at: jiff::Timestamp::now().to_string(),
                host: store::host(),
                srpipe_version: env!("CARGO_PKG_VERSION").to_string(),
            };
            store.commit(&spec.key, &Action { preimage: spec.preimage.to_value(), outputs, metrics, cost })?;
            clean_up(store, lock);
            send(&ProcessEvent::Done { adopted: false });
            Ok(Ended::Done)
        }
        Err(error) if error.is::<Interrupted>() => {
            stop.report_stopped();
            Ok(Ended::Interrupted)
        }
        Err(error) => {
            log(&format!("error: {error:#}"));
            let damaged = error.chain().find_map(|cause| cause.downcast_ref()).and_then(damaged_blob);
            let cause = match error.downcast_ref::<Killed>() {
                _ if error.is::<OutOfMemory>() => Cause::OutOfMemory,
                Some(Killed { signal: 9 }) if oom_kills() > oom_kills_before => Cause::OutOfMemory,
                Some(Killed { signal: 9 | 15 }) => Cause::Lost,
                _ => Cause::Failed,
            };
            send(&ProcessEvent::Failed { error: format!("{error:#}"), cause, damaged });
            Ok(Ended::Failed)
        }
    }
}

/// Removes the work folder. The result is in the store, so an error costs only disk space.
fn clean_up(store: &Store, lock: KeyLock) {
    if let Err(error) = store.clean_work(lock) {
        log(&format!("warning: {error:#}"));
    }
}

fn run_stage(spec: &TaskSpec, store: &Store, stop: &Stop, clock: &Clock) -> Result<Outcome> {
    let work = store.work_dir(&spec.key);
    let reporter = Reporter::new(&work, clock)?;
    let report = |event: StageEvent| reporter.report(event);
    let interrupted = || stop.asked.load(SeqCst);
    let context = Context {
        store,
        inputs: spec.preimage.inputs.clone(),
        sources: spec.preimage.sources.clone(),
        seed: spec.preimage.seed.unwrap_or(0),
        threads: spec.threads,
        gpus: spec.gpus.join(","),
        device: spec.cuda.map_or(Device::Cpu, Device::Cuda),
        batch_divisor: spec.batch_divisor,
        work,
        report: &report,
        interrupted: &interrupted,
        launcher: std::env::current_exe().ok(),
    };
    // A panic is a bug in srpipe. Its message is in the log, and the stage fails.
    let result = catch_unwind(AssertUnwindSafe(|| stages::execute(&spec.params, &context)));
    reporter.flush();
    result.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
        Err(anyhow!("srpipe has a bug: the stage panicked: {text}"))
    })
}

/// Returns the damaged blob that caused an error, if rerunning its producer can restore it.
fn damaged_blob(error: &ReadError) -> Option<Digest> {
    match error {
        ReadError::Missing { path } | ReadError::Corrupt { path } => path.file_name()?.to_str()?.parse().ok(),
        ReadError::Io { .. } => None,
    }
}

/// Whether the stage was asked to stop. Ensures that the process then ends.
#[derive(Default)]
struct Stop {
    asked: Arc<AtomicBool>,
    /// Set once the stage can save a checkpoint; until then a stop request exits immediately.
    running: Mutex<bool>,
    /// The job that this process runs in, if any.
    job: Option<Job>,
    /// The first signal that was received; 0 if none.
    signal: AtomicI32,
}

impl Stop {
    /// Watches the rest of stdin, and the signals that process managers send.
    fn listen(self: &Arc<Self>, mut stdin: BufReader<Stdin>) -> Result<()> {
        for signal in super::not_ignored(&[SIGINT, SIGTERM]) {
            // A second signal ends the process at once.
            signal_hook::flag::register_conditional_shutdown(signal, EXIT_INTERRUPTED.into(), self.asked.clone())
                .and_then(|_| signal_hook::flag::register(signal, self.asked.clone()))
                .context("listening for signals")?;
        }
        let stop = self.clone();
        let watch = move || {
            let mut line = String::new();
            let asked = matches!(stdin.read_line(&mut line), Ok(n) if n > 0) && line.trim_end() == STOP;
            stop.ask();
            if asked {
                // Keep reading, to notice if the parent dies while it waits for the stage to save.
                let deadline = Instant::now() + STOP_GRACE;
                std::thread::spawn(move || {
                    std::thread::sleep(deadline.saturating_duration_since(Instant::now()));
                    std::process::exit(EXIT_INTERRUPTED.into());
                });
                while matches!(stdin.read_line(&mut line), Ok(n) if n > 0) {}
            }
            std::thread::sleep(ORPHAN_GRACE);
            std::process::exit(EXIT_INTERRUPTED.into());
        };
        std::thread::Builder::new().name("stdin".into()).spawn(watch).context("starting a thread")?;
        Ok(())
    }

    /// Watches the signals by which a batch system announces the end of a job. The batch system kills the job if it
    /// takes too long.
    fn listen_for_signals(self: &Arc<Self>) -> Result<()> {
        let mut signals =
            Signals::new(super::not_ignored(&[SIGINT, SIGTERM, SIGUSR2])).context("listening for signals")?;
        let stop = self.clone();
        let watch = move || {
            for signal in signals.forever() {
                // Only the first one counts: a job that exceeds its time limit gets others later.
                let _ = stop.signal.compare_exchange(0, signal, SeqCst, SeqCst);
                stop.ask();
            }
        };
        std::thread::Builder::new().name("signals".into()).spawn(watch).context("starting a thread")?;
        Ok(())
    }

    /// Reports that the stage has stopped on request.
    fn report_stopped(&self) {
        let event = match &self.job {
            None => ProcessEvent::Interrupted,
            Some(job) => {
                let report = |text: String| {
                    log(&text);
                    send(&StageEvent::Message { text });
                };
                job.stop(self.signal.load(SeqCst), report)
            }
        };
        send(&event);
    }

    /// Asks the stage to stop.
    fn ask(&self) {
        self.asked.store(true, SeqCst);
        if !*self.running.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) {
            self.report_stopped();
            std::process::exit(EXIT_INTERRUPTED.into());
        }
    }

    /// Marks the stage as running. Returns false if it was asked to stop before.
    fn begin(&self) -> bool {
        *self.running.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = true;
        !self.asked.load(SeqCst)
    }
}

/// The content of [`SECONDS_FILE`].
#[derive(Serialize, Deserialize)]
struct Spent {
    seconds: f64,
}

/// Measures the time of all attempts to compute a key. The file is updated often, because the process may be killed.
struct Clock {
    path: PathBuf,
    before: f64,
    start: Instant,
}

impl Clock {
    fn new(work: &Path) -> Self {
        let path = work.join(SECONDS_FILE);
        let before = match read_record(&path).map(|bytes| (unseal(&bytes), bytes)) {
            Ok((Ok((Spent { seconds }, Seal::Intact)), _)) => seconds,
            // Older versions wrote a plain number.
            Ok((_, bytes)) if std::str::from_utf8(&bytes).is_ok_and(|text| text.trim().parse::<f64>().is_ok()) => 0.0,
            Ok(_) => {
                log(&format!("{} is damaged and was discarded: its checksum does not match", path.display()));
                0.0
            }
            Err(_) => 0.0,
        };
        Self { path, before, start: Instant::now() }
    }

    fn seconds(&self) -> f64 {
        self.before + self.start.elapsed().as_secs_f64()
    }

    fn save(&self) {
        // The duration is only shown to people, so a write error is ignored.
        if let Ok(bytes) = seal(&Spent { seconds: self.seconds() }) {
            let options = &mut File::options();
            let file = open_own(&self.path, options.create(true).write(true).truncate(true));
            let _ = file.and_then(|mut file| file.write_all(&bytes));
        }
    }
}

/// Passes a stage's events to the parent, the events file and the log.
struct Reporter<'a> {
    clock: &'a Clock,
    state: Mutex<ReporterState>,
}

/// The state of a [`Reporter`].
struct ReporterState {
    file: File,
    /// When progress was last passed on.
    progress_at: Option<Instant>,
    /// Progress that was reported too soon after that.
    pending: Option<StageEvent>,
}

impl<'a> Reporter<'a> {
    fn new(work: &Path, clock: &'a Clock) -> Result<Self> {
        let path = work.join(EVENTS_FILE);
        let file = open_own(&path, File::options().create(true).append(true));
        let file = file.with_context(|| format!("opening {}", path.display()))?;
        Ok(Self { clock, state: Mutex::new(ReporterState { file, progress_at: None, pending: None }) })
    }

    fn report(&self, event: StageEvent) {
        let mut state = self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        match &event {
            StageEvent::Progress { done, total, .. } => {
                if done != total && state.progress_at.is_some_and(|at| at.elapsed() < PROGRESS_INTERVAL) {
                    state.pending = Some(event);
                    return;
                }
                state.progress_at = Some(Instant::now());
                state.pending = None;
                self.clock.save();
            }
            StageEvent::Message { text } => log(text),
        }
        state.pass_on(&event);
    }

    /// Passes on the last progress, after the stage has ended.
    fn flush(&self) {
        let mut state = self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(event) = state.pending.take() {
            state.pass_on(&event);
        }
    }
}

impl ReporterState {
    fn pass_on(&mut self, event: &StageEvent) {
        // The file is only for `status` in other processes, so a write error is ignored.
        let line = serde_json::to_string(event).expect("events are plain data") + "\n";
        let _ = self.file.write_all(line.as_bytes());
        send(event);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_continues_from_the_last_attempt() {
        let work = tempfile::tempdir().unwrap();
        assert_eq!(Clock::new(work.path()).before, 0.0);
        std::fs::write(work.path().join(SECONDS_FILE), seal(&Spent { seconds: 12.5 }).unwrap()).unwrap();
        let clock = Clock::new(work.path());
        clock.save();
        assert!(Clock::new(work.path()).before >= 12.5);
    }
}
