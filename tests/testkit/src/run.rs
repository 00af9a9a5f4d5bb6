//! Runs cases: each in a runtime of its own, with a deadline, and with an eye on panics in tasks.

use std::cell::Cell;
use std::collections::HashMap;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, Once, PoisonError, RwLock};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use tokio::time::timeout;

use crate::cases::{CASES, Case, Dials};
use crate::{Failure, Report, Subject, Verdict};

/// How long a case may take on a busy machine.
const DEADLINE: Duration = Duration::from_secs(300);

/// Cases that measure the process hold it for writing, the others for reading.
static ALONE: RwLock<()> = RwLock::new(());

/// Panics in threads of a case's runtime, by case.
static PANICS: Mutex<Option<HashMap<u64, String>>> = Mutex::new(None);

thread_local! {
    /// The case whose runtime this thread belongs to; 0: none.
    static CASE: Cell<u64> = const { Cell::new(0) };
}

/// A task that panics is silent otherwise: tokio catches it, and so would nobody hear of it.
fn listen_for_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let case = CASE.with(Cell::get);
            if case != 0 {
                let mut panics = PANICS.lock().unwrap_or_else(PoisonError::into_inner);
                panics.get_or_insert_default().entry(case).or_insert_with(|| info.to_string());
            }
            before(info);
        }));
    });
}

/// Says that this process is one of its own already.
const ISOLATED: &str = "ICESHARE_TESTKIT_ISOLATED";

/// Runs the calling `#[test]` once more, alone in a process of its own, and `f` there: what it measures of the process is then
/// not what others left. Where that is not possible (another harness, or no threads) it runs here.
///
/// # Panics
/// If `f` does, there.
pub fn isolated(f: impl FnOnce()) {
    let thread = std::thread::current();
    // Of libtest, which names its threads by the test.
    let test = thread.name().filter(|n| *n != "main" && std::env::var_os(ISOLATED).is_none());
    let again = test.zip(std::env::current_exe().ok()).and_then(|(test, program)| {
        let mut command = std::process::Command::new(program);
        command.args([test, "--exact", "--nocapture"]).env(ISOLATED, "1").stdin(std::process::Stdio::null());
        // Of glibc: what is given back goes to the system at once, so that memory tells what is held, not what was.
        for (name, value) in [
            ("MALLOC_ARENA_MAX", "1"),
            ("MALLOC_MMAP_THRESHOLD_", "65536"),
            ("MALLOC_TRIM_THRESHOLD_", "65536"),
        ] {
            command.env(name, value);
        }
        command.output().ok()
    });
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match again {
        Some(ended) if said(&ended.stdout).contains("running 1 test") => {
            let told = said(&ended.stderr);
            assert!(ended.status.success(), "in a process of its own:\n{told}");
            eprint!("{told}");
        }
        _ => f(),
    }
}

/// Runs one case as a test; the macro [`conformance!`](crate::conformance) calls it.
///
/// # Panics
/// If the case fails, or there is none of that name.
pub fn check(subject: &Subject, name: &str) {
    if CASES.iter().any(|c| c.name == name && c.alone) {
        isolated(|| here(subject, name));
    } else {
        here(subject, name);
    }
}

fn here(subject: &Subject, name: &str) {
    let begun = Instant::now();
    match verdict(subject, name) {
        Verdict::Passed => eprintln!("{name}: {:.1} s", begun.elapsed().as_secs_f64()),
        Verdict::NotApplicable(why) => eprintln!("{name}: not applicable: {why}"),
        Verdict::Failed(why) => {
            let about = CASES.iter().find(|c| c.name == name).map_or("", |c| c.about);
            panic!("{}: {name} ({about})\n  {why}", subject.registration().name);
        }
    }
}

/// Runs one case, and tells how it ended.
///
/// # Panics
/// If there is none of that name.
#[must_use]
pub fn verdict(subject: &Subject, name: &str) -> Verdict {
    let Some(case) = CASES.iter().find(|c| c.name == name) else { panic!("no case {name:?}") };
    one(subject, case)
}

/// Runs all cases, one after the other.
#[must_use]
pub fn run(subject: &Subject) -> Report {
    let mut report = Report::default();
    for case in CASES {
        let begun = Instant::now();
        let verdict = one(subject, case);
        report.rows.push((case.name, verdict, begun.elapsed()));
    }
    report
}

fn applicable(subject: &Subject, case: &Case) -> Result<Option<String>, Failure> {
    if let Some(why) = subject.left_out(case.name) {
        return Ok(Some(format!("left out: {why}")));
    }
    let built = subject.build()?;
    let (abilities, dials) = (built.implementation.abilities(), built.implementation.dials());
    if !abilities.has(case.needs) {
        return Ok(Some(format!("it does not declare {}", case.needs)));
    }
    let fits = match case.dials {
        Dials::Any => true,
        Dials::Some => dials.is_some(),
        Dials::Udp => dials == Some(iceshare::icet::NetKind::Udp),
    };
    Ok((!fits).then(|| "it does not dial such an address".to_owned()))
}

fn one(subject: &Subject, case: &Case) -> Verdict {
    match applicable(subject, case) {
        Ok(None) => {}
        Ok(Some(why)) => return Verdict::NotApplicable(why),
        Err(e) => return Verdict::Failed(e.to_string()),
    }
    let (mut shared, mut alone) = (None, None);
    if case.alone {
        alone = Some(ALONE.write().unwrap_or_else(PoisonError::into_inner));
    } else {
        shared = Some(ALONE.read().unwrap_or_else(PoisonError::into_inner));
    }
    let result = in_runtime(subject, case);
    drop((shared.take(), alone.take()));
    match result {
        Ok(()) => Verdict::Passed,
        Err(e) => Verdict::Failed(e.to_string()),
    }
}

fn in_runtime(subject: &Subject, case: &Case) -> Result<(), Failure> {
    static NUMBER: AtomicU64 = AtomicU64::new(1);
    listen_for_panics();
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name(case.name)
        .on_thread_start(move || CASE.with(|c| c.set(number)))
        .enable_all()
        .build()?;
    let case_itself = runtime.spawn(AssertUnwindSafe((case.run)(subject.clone())).catch_unwind());
    let ended = runtime.block_on(async { timeout(DEADLINE, case_itself).await });
    runtime.shutdown_timeout(Duration::from_secs(5));
    let panicked =
        PANICS.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default().remove(&number);
    if let Some(panicked) = panicked {
        return Err(Failure::new(format!("a task panicked: {panicked}")));
    }
    match ended {
        Err(_) => Err(Failure::new(format!("it hangs: not over in {} s", DEADLINE.as_secs()))),
        Ok(Err(e)) => Err(e.into()),
        Ok(Ok(Err(_))) => Err(Failure::new("it panicked")),
        Ok(Ok(Ok(result))) => result,
    }
}
