//! `sidetrack record`: the decisions of a running sidetrack into a file.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{sleep, sleep_until};

use super::{Wanted, lines};
use crate::record::format::{End, Entry, Gap, Total};

/// Written at least so often, so that somebody who looks at the file sees what is new.
const FLUSH: Duration = Duration::from_millis(250);

/// Longer than anything runs.
const FOR_EVER: Duration = Duration::from_secs(u32::MAX as u64);

/// What to record, and for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recording {
    /// `-` for standard output.
    pub out: PathBuf,
    pub at: Wanted,
    /// The pool, unless it is clear which.
    pub pool: Option<String>,
    pub time: Option<Duration>,
    /// Decisions, at most.
    pub most: Option<u64>,
    pub full: bool,
    pub keep: Vec<String>,
}

/// Records until enough is recorded, a signal comes, or sidetrack ends. A line says how it went.
///
/// # Errors
/// When nothing can be recorded; in words.
pub async fn record(recording: &Recording) -> Result<(), String> {
    let place = recording.at.place().map_err(|error| error.to_string())?;
    let mut query = form_urlencoded::Serializer::new(String::new());
    if recording.full {
        query.append_pair("form", "full");
    }
    if let Some(pool) = &recording.pool {
        query.append_pair("pool", pool);
    }
    for keep in &recording.keep {
        query.append_pair("keep", keep);
    }
    let path = format!("/v1/decisions?{}", query.finish());
    let mut lines = lines(&place, &path).await.map_err(|error| error.to_string())??;
    // Only now: a file is not made for a recording that cannot be.
    let trouble = |error: io::Error| format!("{}: {error}", recording.out.display());
    let mut file = BufWriter::new(create(&recording.out).map_err(trouble)?);
    let stop = |kind| signal(kind).map_err(|error| error.to_string());
    let (mut interrupt, mut terminate) = (stop(SignalKind::interrupt())?, stop(SignalKind::terminate())?);

    let began = Instant::now();
    let time = recording.time.unwrap_or(FOR_EVER);
    let over = sleep(time);
    tokio::pin!(over);
    let mut due = tokio::time::Instant::now() + FLUSH;
    let mut tally = Tally::default();
    let reason = loop {
        tokio::select! {
            biased;
            _ = interrupt.recv() => break "stopped",
            _ = terminate.recv() => break "stopped",
            () = &mut over => break "time is up",
            () = sleep_until(due) => {
                file.flush().map_err(trouble)?;
                due = tokio::time::Instant::now() + FLUSH;
            }
            line = lines.next() => {
                let Some(line) = line else { break "sidetrack has ended" };
                tally.note(&line);
                file.write_all(&line).and_then(|()| file.write_all(b"\n")).map_err(trouble)?;
                if recording.most.is_some_and(|most| tally.total.decisions >= most) {
                    break "enough";
                }
            }
        }
    };
    let t = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX).max(tally.time);
    let end = serde_json::to_string(&End { t, end: tally.total }).map_err(|error| error.to_string())?;
    writeln!(file, "{end}").and_then(|()| file.flush()).map_err(trouble)?;
    drop(writeln!(io::stderr(), "sidetrack: {}", tally.said(reason, began.elapsed())));
    Ok(())
}

/// A file that is this user's alone, and never one that is there already.
fn create(path: &Path) -> io::Result<Box<dyn Write>> {
    if path == Path::new("-") {
        return Ok(Box::new(io::stdout()));
    }
    let file: io::Result<File> = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    match file {
        Ok(file) => Ok(Box::new(file)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Err(io::Error::new(error.kind(), "it is there already; name another file, or remove it"))
        }
        Err(error) => Err(error),
    }
}

/// What was written.
#[derive(Debug, Default)]
struct Tally {
    total: Total,
    bytes: u64,
    time: u64,
}

impl Tally {
    fn note(&mut self, line: &[u8]) {
        self.bytes += line.len() as u64 + 1;
        // The first line is no entry.
        let Ok(entry) =
            std::str::from_utf8(line).map_err(drop).and_then(|line| Entry::parse(line).map_err(drop))
        else {
            return;
        };
        self.time = entry.time();
        match entry {
            Entry::Decision(decision) if !decision.hand => self.total.decisions += 1,
            Entry::Gap(Gap { gap, .. }) => self.total.lost += gap,
            _ => {}
        }
    }

    fn said(&self, reason: &str, time: Duration) -> String {
        let Total { decisions, lost } = self.total;
        let each =
            self.bytes.checked_div(decisions).map(|each| format!(", {each} bytes each")).unwrap_or_default();
        let lost = if lost > 0 {
            format!("; {lost} observations lost, since reading was slow")
        } else {
            String::new()
        };
        format!("{reason}: {decisions} decisions in {:.1} s{each}{lost}", time.as_secs_f64())
    }
}
