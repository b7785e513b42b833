//! `worker --create-tables`: makes and fills the tables of the tests, if they are not there.

use std::error::Error;
use std::io::Write;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use worker::pg;

/// Longest time for everything: connecting, waiting for another process that does the same, filling.
const TIME_MAX: Duration = Duration::from_secs(60);

/// Number of the lock that keeps two processes from doing this at once; any number will do, if all use the same.
const LOCK: i64 = 0x6d6f_6e6f;

/// Idempotent, and one transaction: the tables are there whole or not at all.
const SQL: &str = "
    CREATE TABLE IF NOT EXISTS world (
        id integer NOT NULL PRIMARY KEY,
        randomnumber integer NOT NULL DEFAULT 0
    );
    INSERT INTO world (id, randomnumber)
        SELECT x.id, least(floor(random() * 10000 + 1), 10000)
        FROM generate_series(1, 10000) AS x(id)
        WHERE NOT EXISTS (SELECT 1 FROM world);
    CREATE TABLE IF NOT EXISTS fortune (
        id integer NOT NULL PRIMARY KEY,
        message varchar(2048) NOT NULL
    );
    INSERT INTO fortune (id, message)
        SELECT * FROM (VALUES
            (1, 'fortune: No such file or directory'),
            (2, 'A computer scientist is someone who fixes things that aren''t broken.'),
            (3, 'After enough decimal places, nobody gives a damn.'),
            (4, 'A bad random number generator: 1, 1, 1, 1, 1, 4.33e+67, 1, 1, 1'),
            (5, 'A computer program does what you tell it to do, not what you want it to do.'),
            (6, 'Emacs is a nice operating system, but I prefer UNIX. \u{2014} Tom Christaensen'),
            (7, 'Any program that runs right is obsolete.'),
            (8, 'A list is only as strong as its weakest link. \u{2014} Donald Knuth'),
            (9, 'Feature: A bug with seniority.'),
            (10, 'Computers make very fast, very accurate mistakes.'),
            (11, '<script>alert(\"This should not be displayed in a browser alert box.\");</script>'),
            (12, '\u{30d5}\u{30ec}\u{30fc}\u{30e0}\u{30ef}\u{30fc}\u{30af}\u{306e}\u{30d9}\u{30f3}\u{30c1}\u{30de}\u{30fc}\u{30af}')
        ) AS fortunes(id, message)
        WHERE NOT EXISTS (SELECT 1 FROM fortune);
    ANALYZE world;
    ANALYZE fortune;
";

/// Makes and fills the tables in the database of `DATABASE_URL`.
pub fn create() -> ExitCode {
    match std::env::var("DATABASE_URL")
        .map_err(|_| "the variable DATABASE_URL is not set".into())
        .and_then(run)
    {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut text = format!("worker: cannot create the tables: {error}");
            let mut source = error.source();
            while let Some(error) = source {
                text.push_str(&format!(": {error}"));
                source = error.source();
            }
            say(&text);
            ExitCode::FAILURE
        }
    }
}

/// Says how the program is called.
pub fn usage() -> ExitCode {
    say("usage: worker [--create-tables]");
    ExitCode::from(2)
}

fn say(text: &str) {
    // Nobody is left to tell of a failure.
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn run(url: String) -> Result<(), Box<dyn Error>> {
    let config = pg::Config::parse(&url)?;
    drive(config, |database| async move {
        let transaction = database.transaction().await?;
        transaction.execute("SELECT pg_advisory_xact_lock($1)", &[&LOCK]).await?;
        transaction.batch_execute(SQL).await?;
        transaction.commit().await?;
        Ok(())
    })
}

/// Runs one task against a database, without the rest of a worker.
fn drive<F>(config: pg::Config, task: impl FnOnce(pg::Database) -> F) -> Result<(), Box<dyn Error>>
where
    F: Future<Output = Result<(), Box<dyn Error>>>,
{
    let mut poll = mio::Poll::new()?;
    let registry = poll.registry().try_clone()?;
    let tokens = 0..config.tokens_needed();
    let began = Instant::now();
    let database = pg::Database::new(config, registry, tokens, Box::new(pg::NoEvents), began);
    let mut events = mio::Events::with_capacity(64);
    let flag = Arc::new(Flag(AtomicBool::new(true)));
    let waker = Waker::from(Arc::clone(&flag));
    let mut task = pin!(task(database.clone()));
    loop {
        let now = Instant::now();
        // A query before the first attempt is over would fail at once.
        while database.is_settled() && flag.0.swap(false, Ordering::SeqCst) {
            if let Poll::Ready(result) = task.as_mut().poll(&mut Context::from_waker(&waker)) {
                database.close();
                return result;
            }
            database.flush(now);
        }
        if TIME_MAX < now - began {
            return Err(
                format!("the database did not finish within {} s", TIME_MAX.as_secs()).into()
            );
        }
        let due = database
            .next_deadline(now)
            .map_or(Duration::from_secs(1), |at| at.saturating_duration_since(now));
        match poll.poll(&mut events, Some(due.min(Duration::from_secs(1)))) {
            Err(error) if error.kind() != std::io::ErrorKind::Interrupted => {
                return Err(error.into());
            }
            _ => (),
        }
        let now = Instant::now();
        for event in &events {
            database.on_ready(event, now);
        }
        database.on_deadline(now);
    }
}

struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Flag>) {
        self.0.store(true, Ordering::SeqCst);
    }
}
