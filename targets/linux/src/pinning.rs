//! Threads that stay on processors of their own.
//!
//! The calling thread isn't pinned: threads that it starts later would be as well, and the system moves it to the processor that is left.

use std::io;

use core_affinity::CoreId;
use rescomp_runtime::threads::ThreadPool;

use crate::error::Error;

/// A pool whose workers are pinned, to the processors behind the first that this process may run on.
///
/// # Errors
/// `Exit::Input` where there are fewer processors than threads, `Exit::Failed` where the system refuses a thread or its processor.
pub(crate) fn pinned_pool(threads: usize) -> Result<ThreadPool, Error> {
    let processors = core_affinity::get_core_ids().unwrap_or_default();
    if threads > processors.len() {
        return Err(Error::usage(format!(
            "--pin: expected at most {} threads, one for each processor that this program may run on, found {threads}",
            processors.len()
        )));
    }
    let start = move |index: usize| match core_affinity::set_for_current(processors[index]) {
        true => Ok(()),
        false => {
            let CoreId { id } = processors[index];
            Err(io::Error::other(format!("the system refuses processor {id}")))
        }
    };
    ThreadPool::with_start(threads, start).map_err(|error| Error::system("pin a thread", &error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rescomp_runtime::executor::Executor;
    use std::collections::HashMap;
    use std::sync::Mutex;

    /// The processors that the thread that calls may run on, as Linux shows them.
    fn allowed() -> String {
        let status = std::fs::read_to_string("/proc/thread-self/status").expect("Linux");
        let line = status.lines().find(|line| line.starts_with("Cpus_allowed_list")).expect("a list");
        line.split_whitespace().last().expect("a value").to_owned()
    }

    #[test]
    fn workers_stay_on_one_processor_each() {
        let processors = core_affinity::get_core_ids().expect("processors");
        let before = allowed();
        let pool = pinned_pool(processors.len()).expect("a pool");
        let seen: Mutex<HashMap<std::thread::ThreadId, String>> = Mutex::default();
        // Until every worker has run a share: the calling thread runs those of workers that are late.
        while seen.lock().expect("a map").len() < processors.len() {
            pool.run(processors.len(), &|_| {
                seen.lock().expect("a map").insert(std::thread::current().id(), allowed());
                std::thread::yield_now();
            });
        }
        let mut seen = seen.into_inner().expect("a map");
        assert_eq!(seen.remove(&std::thread::current().id()), Some(before), "the calling thread is free");
        let mut found: Vec<String> = seen.into_values().collect();
        let mut expected: Vec<String> = processors[1..].iter().map(|core| core.id.to_string()).collect();
        found.sort();
        expected.sort();
        assert_eq!(found, expected);
    }

    #[test]
    fn more_threads_than_processors_are_refused() {
        let processors = core_affinity::get_core_ids().expect("processors").len();
        let error = pinned_pool(processors + 1).expect_err("refused").to_string();
        assert!(error.contains(&format!("at most {processors} threads")), "{error}");
    }
}
