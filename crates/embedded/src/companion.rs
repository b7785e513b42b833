//! The companion's life: make, start, serve, start again, stop.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::account::Account;
use crate::back_off::BackOff;
use crate::cluster::{self, Lock};
use crate::error::Error;
use crate::layout::Layout;
use crate::process::{self, Job, Process};
use crate::programs::{self, Programs};
use crate::server::{self, Start};
use crate::wait::{Wake, Watch};
use crate::{Level, Options};

/// Time that another companion on the same cluster has to finish stopping.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(5);
/// How often its lock is tried meanwhile.
const LOCK_EVERY: Duration = Duration::from_millis(50);
/// Failed starts in a row, before the first good one, after which the companion gives up.
const FIRST_STARTS_MAX: u32 = 6;
/// Time that making the application's tables may take.
const TABLES_MAX: Duration = Duration::from_secs(120);
/// How often the size of the log is looked at.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// Lives until a stop is asked for; returns what asked.
pub(crate) fn live(options: &mut Options, watch: &mut Watch) -> Result<&'static str, Error> {
    let layout = Layout::new(&options.state_dir);
    cluster::make_home(&layout)?;
    let _lock = match lock(&layout, options, watch)? {
        Ok(lock) => lock,
        Err(name) => return Ok(name),
    };
    let path = std::env::var_os("PATH");
    let programs = programs::find(path.as_deref(), cluster::version(&layout)?, &layout.data)?;
    let account = Account::choose(&layout.data)?;
    if let Some(folder) = account.switch.then(|| account.barred_by(&layout.home)).flatten() {
        return Err(Error::Unreachable { folder, user: account.name });
    }
    if !layout.data.exists() {
        cluster::begin(&layout, &account)?;
        if let Some(name) = server::make(&layout, &programs, &account, watch)? {
            return Ok(name);
        }
        cluster::finish(&layout)?;
        let text =
            format!("Made a PostgreSQL {} cluster in {}", programs.major, layout.data.display());
        (options.log)(Level::Info, &text);
    }
    let run = layout.run.clone();
    let ended =
        Companion { layout, programs, account, options, watch, back_off: BackOff::default() }
            .serve();
    // It may be one in /tmp, which nobody else would remove; an error here is the next start's to report.
    let _ = std::fs::remove_dir_all(run);
    ended
}

/// Takes the cluster's lock. The inner error names what asked for a stop meanwhile.
fn lock(
    layout: &Layout,
    options: &mut Options,
    watch: &mut Watch,
) -> Result<Result<Lock, &'static str>, Error> {
    let deadline = Instant::now() + LOCK_WAIT_MAX;
    let mut said = false;
    loop {
        let pid = match cluster::lock(layout)? {
            Ok(lock) => return Ok(Ok(lock)),
            Err(pid) => pid,
        };
        if deadline <= Instant::now() {
            return Err(Error::InUse { home: layout.home.clone(), pid });
        }
        if !std::mem::replace(&mut said, true) {
            let text = format!(
                "{}; waiting for it to stop",
                Error::InUse { home: layout.home.clone(), pid }
            );
            (options.log)(Level::Warning, &text);
        }
        if let Wake::Stop(name) = watch.wait(None, Some(Instant::now() + LOCK_EVERY))? {
            return Ok(Err(name));
        }
    }
}

struct Companion<'a> {
    layout: Layout,
    programs: Programs,
    account: Account,
    options: &'a mut Options,
    watch: &'a mut Watch,
    back_off: BackOff,
}

impl Companion<'_> {
    fn serve(mut self) -> Result<&'static str, Error> {
        let mut announced = false;
        loop {
            let began = Instant::now();
            let died = match self.start()? {
                Start::Stopped(name) => return Ok(name),
                Start::Died(how) => {
                    if !announced && FIRST_STARTS_MAX <= self.back_off.failures() + 1 {
                        return Err(self.failed(how));
                    }
                    how
                }
                Start::Ready(process) => {
                    let text =
                        format!("PostgreSQL {} ready pid={}", self.programs.major, process.pid());
                    (self.options.log)(Level::Info, &text);
                    if !announced {
                        match self.announce() {
                            Ok(None) => announced = true,
                            verdict => {
                                server::stop(process, self.watch)?;
                                return verdict.map(Option::unwrap_or_default);
                            }
                        }
                    }
                    match self.watch_over(process)? {
                        Ok(how) => how,
                        Err(name) => return Ok(name),
                    }
                }
            };
            let wait = self.back_off.after(began.elapsed());
            let text =
                format!("{}; starting it again in {} ms", self.failed(died), wait.as_millis());
            (self.options.log)(Level::Warning, &text);
            if let Wake::Stop(name) = self.watch.wait(None, Some(Instant::now() + wait))? {
                return Ok(name);
            }
        }
    }

    fn start(&mut self) -> Result<Start, Error> {
        let leftover = crate::leftover::stop_all(&self.layout, self.watch)?;
        if 0 < leftover {
            let text = format!(
                "Stopped server processes that an earlier PostgreSQL left behind count={leftover}"
            );
            (self.options.log)(Level::Warning, &text);
        }
        cluster::make_run(&self.layout, &self.account, self.options.socket_group)?;
        server::start(&self.layout, &self.programs, &self.account, self.watch)
    }

    /// Has the tables made and tells the master. `Some`: a stop was asked for meanwhile, by this.
    fn announce(&mut self) -> Result<Option<&'static str>, Error> {
        if let Some(program) = self.options.create_tables.clone()
            && let Some(name) = self.create_tables(&program)?
        {
            return Ok(Some(name));
        }
        crate::notify::ready(self.options.notify_socket.as_deref());
        Ok(None)
    }

    fn create_tables(&mut self, program: &Path) -> Result<Option<&'static str>, Error> {
        let log = cluster::open_log(&self.layout)?;
        let job = Job::new(program, vec!["--create-tables".into()], &log)
            .variable("DATABASE_URL", crate::url(&self.options.state_dir));
        process::finish(job.start()?, "making the tables", TABLES_MAX, &self.layout, self.watch)
    }

    /// Waits for the end of `process`, which is stopped if that is asked for: then the inner error names what asked.
    fn watch_over(&mut self, process: Process) -> Result<Result<String, &'static str>, Error> {
        loop {
            match self.watch.wait(Some(process.pidfd()), Some(Instant::now() + LOG_EVERY))? {
                Wake::Exited => return Ok(Ok(process.reap()?.how)),
                Wake::Stop(name) => {
                    (self.options.log)(Level::Info, &format!("Stopping PostgreSQL on {name}"));
                    server::stop(process, self.watch)?;
                    return Ok(Err(name));
                }
                Wake::Deadline => cluster::cut_log(&self.layout)?,
            }
        }
    }

    fn failed(&self, how: String) -> Error {
        let last = cluster::last_line(&self.layout);
        Error::Failed { what: "PostgreSQL", how, log: self.layout.log.clone(), last }
    }
}
